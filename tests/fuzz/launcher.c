/*
 * The launcher under libFuzzer: its own main() in a child of the harness would be slow, so it runs
 * in this process, renamed, against a server that says what the fuzzer wants.
 *
 * An input is a byte of flags, a byte for argv[0], a byte for the environment's size, then three
 * parts, each with two bytes of length before it: the environment (NUL-terminated strings), the
 * name, and the server's answers (each with two bytes of length before it).
 *
 * What goes to standard output is looked at afterwards: nothing, or one JSON object of the
 * launcher's own, or what the server had it print, to the byte. Every descriptor is closed again.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum {
    NOBODY_LISTENS = 1,
    BUSY = 2,
    SIGNALLED = 4,
    RESET_FIRST = 8,
    SHORT_WRITES = 16,
    NO_DESCRIPTORS = 32,
    SEND_FAILS = 64,
    WITH_ARGUMENTS = 128,
    /* Somebody listens who is not to be trusted. */
    STRANGER = NOBODY_LISTENS | BUSY,
};

#define MAX_OUTPUT (1 << 17)
#define NEWEST 2

static uint8_t flags;
static int server_side = -1;
static const uint8_t *answers;
static size_t answers_left;
static time_t fake_seconds;
static int opened[256], opened_count, executed;
static char output[MAX_OUTPUT];
static size_t output_length;
static bool was_reset, was_sent;
static int sent_count;
static void (*handlers[64])(int);

/* The system calls that the launcher makes, as the fuzzer wants them. */

static int fake_socket(int domain, int type, int protocol)
{
    (void)domain, (void)type, (void)protocol;
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    /* The last one, where the launcher calls again in another version. */
    if (server_side >= 0)
        close(server_side);
    int size = 1 << 20;
    setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size);
    server_side = pair[1];
    opened[opened_count++] = pair[0];
    return pair[0];
}

static int fake_connect(int fd, const struct sockaddr *address, socklen_t length)
{
    const struct sockaddr_un *given = (const void *)address;
    (void)fd;
    /* A path that is not terminated would be read beyond its end. */
    if (length != sizeof *given || memchr(given->sun_path, 0, sizeof given->sun_path) == NULL)
        abort();
    if ((flags & STRANGER) == STRANGER)
        return 0;
    if (flags & NOBODY_LISTENS) {
        errno = ECONNREFUSED;
        return -1;
    }
    if (flags & BUSY) {
        errno = EAGAIN;
        return -1;
    }
    return 0;
}

/* The server's user is the fuzzer's choice too: of a stranger's nothing may be asked. */
static int fake_getsockopt(int fd, int level, int name, void *value, socklen_t *length)
{
    struct ucred *peer = value;
    (void)fd;
    bool stranger = (flags & STRANGER) == STRANGER;
    if (level != SOL_SOCKET || name != SO_PEERCRED || *length != sizeof *peer)
        abort();
    *peer = (struct ucred){.pid = 1, .uid = stranger ? geteuid() + 1 : geteuid()};
    return 0;
}

static void check_sent(const struct msghdr *sent)
{
    const uint8_t *message = sent->msg_iov->iov_base;
    size_t length = sent->msg_iov->iov_len;
    if ((flags & STRANGER) == STRANGER)
        abort();
    /* An empty name is the shortest. */
    if (length < 6 || length > 128 * 1024 || memcmp(message, "CNI", 3) != 0 || message[length - 1])
        abort();
    /* Each time in a version below the last one. */
    if (message[3] != '0' + NEWEST - sent_count++)
        abort();
    size_t count = 0;
    if (sent->msg_controllen > 0)
        count = (CMSG_FIRSTHDR(sent)->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    if ((size_t)__builtin_popcount(message[4]) != count)
        abort();
}

static ssize_t fake_sendmsg(int fd, const struct msghdr *sent, int how)
{
    check_sent(sent);
    if (flags & SEND_FAILS) {
        errno = EMSGSIZE;
        return -1;
    }
    ssize_t done = sendmsg(fd, sent, how);
    was_sent = done >= 0;
    return done;
}

/* The next answer is sent as the launcher begins to wait; after the last one the server is gone. */
static int fake_ppoll(struct pollfd *polled, nfds_t count, const struct timespec *limit,
                      const sigset_t *mask)
{
    (void)mask;
    if (limit != NULL)
        fake_seconds += 30;
    if (flags & SIGNALLED) {
        flags &= (uint8_t)~SIGNALLED;
        handlers[SIGTERM](SIGTERM);
        errno = EINTR;
        return -1;
    }
    if (answers_left >= 2) {
        size_t length = (size_t)answers[0] | (size_t)answers[1] << 8;
        answers += 2, answers_left -= 2;
        if (length > answers_left)
            length = answers_left;
        if (length > 0)
            (void)!send(server_side, answers, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        answers += length, answers_left -= length;
    } else if (server_side >= 0) {
        close(server_side);
        server_side = -1;
    }
    struct timespec now = {0};
    return ppoll(polled, count, &now, NULL);
}

static ssize_t fake_recv(int fd, void *buffer, size_t length, int how)
{
    if ((flags & RESET_FIRST) && !was_reset) {
        was_reset = true;
        errno = ECONNRESET;
        return -1;
    }
    return recv(fd, buffer, length, how);
}

static ssize_t fake_write(int fd, const void *data, size_t length)
{
    if (fd != STDOUT_FILENO)
        abort();
    if ((flags & SHORT_WRITES) && length > 1)
        length = (length + 1) / 2;
    if (length > MAX_OUTPUT - output_length) {
        errno = EPIPE;
        return -1;
    }
    memcpy(output + output_length, data, length);
    output_length += length;
    return (ssize_t)length;
}

static int fake_open(const char *path, int how, ...)
{
    if (flags & NO_DESCRIPTORS) {
        errno = EMFILE;
        return -1;
    }
    /* A hostile CNI_NETNS may name anything: what opening does there is the kernel's matter. */
    int fd = strncmp(path, "/proc/thread-self", 17) == 0 || strcmp(path, ".") == 0
                 ? open(path, how & ~O_CREAT)
                 : open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (how & (O_WRONLY | O_CREAT | O_TRUNC))
        abort();
    if (fd >= 0)
        opened[opened_count++] = fd;
    return fd;
}

static int fake_fcntl(int fd, int command)
{
    (void)fd, (void)command;
    return 0;
}

static int fake_stat(const char *path, struct stat *status)
{
    if (strcmp(path, "/proc/self/ns/mnt") == 0)
        return stat(path, status);
    errno = ENOENT;
    return -1;
}

static int fake_execv(const char *path, char *const *arguments)
{
    if (path[0] != '/' || arguments[0] == NULL)
        abort();
    executed++;
    errno = ENOENT;
    return -1;
}

static int fake_clock_gettime(clockid_t clock, struct timespec *now)
{
    (void)clock;
    now->tv_sec = fake_seconds;
    return 0;
}

static int fake_sigaction(int number, const struct sigaction *wanted, struct sigaction *before)
{
    (void)before;
    handlers[number] = wanted->sa_handler;
    return 0;
}

#define socket fake_socket
#define connect fake_connect
#define getsockopt fake_getsockopt
#define sendmsg fake_sendmsg
#define ppoll fake_ppoll
#define recv fake_recv
#define write fake_write
#define open fake_open
#define fcntl fake_fcntl
#define execv fake_execv
#define clock_gettime fake_clock_gettime
#define stat(path, status) fake_stat(path, status)
/* Nothing is waited for where there is no folder of a socket. */
#define nanosleep(wanted, left) (abort(), -1)
#define sigaction(number, wanted, before) fake_sigaction(number, wanted, before)
/* A DEL is neither kept nor deferred here: nothing outside of this process may be written to. */
#define memfd_create(name, how) (errno = ENOSYS, -1)
#define mkdir(path, mode) (errno = EROFS, -1)
#define openat(folder, path, how, mode) (abort(), -1)
#define linkat(from, path, to, name, how) (abort(), -1)
#define setns(fd, kind) (abort(), -1)
#define sigprocmask(how, set, before) ((void)(how), (void)(set), (void)(before), 0)
#define main launcher_main
/* The real one is found by its beginning and filled; here it has a folder. */
#include "../../plugins/launcher.c"
#undef main
#undef open
#undef socket
#undef write
#undef sigprocmask

/* A part with two bytes of length before it. */
static const uint8_t *part(const uint8_t **data, size_t *size, size_t *length)
{
    *length = 0;
    if (*size < 2)
        return *data;
    size_t wanted = (size_t)(*data)[0] | (size_t)(*data)[1] << 8;
    *data += 2, *size -= 2;
    *length = wanted < *size ? wanted : *size;
    const uint8_t *begins = *data;
    *data += *length, *size -= *length;
    return begins;
}

/* Whether the launcher has printed an error of its own, whole, and nothing else. */
static bool is_own_error(void)
{
    static const char begins[] = "{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": ";
    return output_length > sizeof begins && memcmp(output, begins, sizeof begins - 1) == 0 &&
           memcmp(output + output_length - 2, "\n}", 2) == 0;
}

/* What a call that was sent, and that no signal has ended, comes to: the answers say it. */
static void check_end(int status, const uint8_t *said, size_t left)
{
    bool begun = false, writing = false;
    int version = NEWEST;
    while (left >= 2) {
        size_t length = (size_t)said[0] | (size_t)said[1] << 8;
        said += 2, left -= 2;
        if (length > left)
            length = left;
        size_t received = length < MAX_ANSWER_BYTES ? length : MAX_ANSWER_BYTES;
        if (received == 2 && said[0] == 'X') {
            if (status != said[1] || output_length > 0 || executed > 0)
                abort();
            return;
        }
        /* Another version is asked for: the launcher has called again with it, or has none. */
        int lowest = 0, highest = 0;
        if (!begun && received == 3 && said[0] == 'V')
            lowest = said[1], highest = said[2];
        else if (!begun && version > 1 && received > 0 && said[0] == 'E' &&
                 memmem(said, received, not_understood, sizeof not_understood - 1) != NULL)
            lowest = highest = 1;
        if (highest > 0 || (!begun && received == 3 && said[0] == 'V')) {
            version = highest < version ? highest : version - 1;
            if (version < lowest || version < 1) {
                if (status != 1 || !is_own_error())
                    abort();
                return;
            }
            said += length, left -= length;
            continue;
        }
        if (!begun && received > 0 && said[0] == 'N') {
            if (status != 1 || !is_own_error())
                abort();
            return;
        }
        if (received > 0 && said[0] == 'E') {
            if (status != 1 || output_length != received - 1 || executed > 0 ||
                memcmp(output, said + 1, received - 1) != 0)
                abort();
            return;
        }
        begun = begun || (received > 0 && said[0] == 'A');
        writing = writing || (received > 0 && said[0] == 'W');
        said += length, left -= length;
    }
    /* The server went away: another may do the call only if it had not begun. */
    if (status != 1 || (begun && executed > 0) || (begun && writing && output_length > 0) ||
        (!(begun && writing) && !is_own_error()))
        abort();
}

static void check_output(int status, uint8_t given, const uint8_t *said, size_t left)
{
    if (status < 0 || status > 255 || executed > 1)
        abort();
    if (server_side == -1 && !was_sent) {
        /* Nobody has heard of the call: it ends with an error of the launcher's. */
        if (status != 1 || !is_own_error())
            abort();
    } else if (was_sent && !(given & SIGNALLED)) {
        check_end(status, said, left);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    flags = data[0];
    uint8_t folder = data[1], repeated = data[2];
    data += 3, size -= 3;
    size_t environment_length, name_length;
    const uint8_t *environment = part(&data, &size, &environment_length);
    const uint8_t *called = part(&data, &size, &name_length);
    answers = part(&data, &size, &answers_left);
    const uint8_t given = flags, *said = answers;
    const size_t said_length = answers_left;

    /* On the heap, so that what is read beyond an end is seen. */
    char *texts = malloc(environment_length + 1), *name = malloc(name_length + 1);
    char **variables = calloc(environment_length + 2 + repeated, sizeof *variables);
    if (texts == NULL || name == NULL || variables == NULL)
        abort();
    memcpy(texts, environment, environment_length);
    texts[environment_length] = '\0';
    memcpy(name, called, name_length);
    name[name_length] = '\0';
    size_t count = 0;
    for (size_t at = 0; at < environment_length; at += strlen(texts + at) + 1)
        variables[count++] = texts + at;
    /* Up to 255 more of the first one: messages that are too long. */
    for (size_t i = 0; i < repeated && count > 0; i++)
        variables[count++] = variables[0];
    for (size_t i = 0; i < sizeof executables; i++)
        executables[i] = folder & 1 ? (folder & 2 ? 'x' : (i == 0 ? '/' : (i < 9 ? 'a' : 0))) : 0;
    if (folder & 2)
        executables[0] = '/';

    char **before = environ;
    environ = variables;
    server_side = -1, fake_seconds = 0, opened_count = executed = 0, output_length = 0;
    was_reset = was_sent = interrupted = false, pending_signal = 0, sent_count = 0;
    memset(&this_call, 0, sizeof this_call);
    char argument[] = "daemon";
    char *argv[] = {name, flags & WITH_ARGUMENTS ? argument : NULL, NULL};
    int status = launcher_main(flags & WITH_ARGUMENTS ? 2 : 1, argv);
    environ = before;
    check_output(status, given, said, said_length);
    if (server_side >= 0)
        close(server_side);
    /* What the launcher has not closed goes with its process. */
    for (int i = 0; i < opened_count; i++)
        close(opened[i]);
    free(variables);
    free(name);
    free(texts);
    return 0;
}

#ifdef WITHOUT_FUZZER
#undef recv
/* Runs each of the files once. */
int main(int argc, char **argv)
{
    static uint8_t room[1 << 18];
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (file == NULL)
            return 1;
        size_t length = fread(room, 1, sizeof room, file);
        fclose(file);
        LLVMFuzzerTestOneInput(room, length);
    }
    printf("%d inputs\n", argc - 1);
    return 0;
}
#endif
