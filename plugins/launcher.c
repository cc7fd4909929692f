/*
 * The launcher: installed under every plugin's name, it hands the call to the warm server.
 *
 * One message on a SOCK_SEQPACKET socket carries the plugin's name, the environment, and as file
 * descriptors: standard input, output and error, the caller's own network namespace, its working
 * directory, and the namespace at CNI_NETNS. The server's answers are one letter and its arguments:
 *
 *     A          the call has begun
 *     W          a document is about to be written to standard output
 *     X status   the call has ended
 *     E text     the server refuses: text is the document to print, the status is 1
 *
 * Signals that ask this process to end are passed on as `S number`; the end of this process closes
 * the socket, which the server takes for the same. Where nobody listens, or the server goes away
 * before A, the Python executable does the call. The folder of those is written into
 * `executables` when the launcher is installed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_MESSAGE_BYTES (128 * 1024)
#define MAX_ANSWER_BYTES 4096
#define CONNECT_SECONDS 10
/* An undoing may wait 30 s for a lock, and the server ends what takes longer than twice that. */
#define END_SECONDS 100
#define TRY_AGAIN_LATER 11
#define PLUGIN_NOT_AVAILABLE 50

enum { FD_STDIN, FD_STDOUT, FD_STDERR, FD_OWN_NETNS, FD_CWD, FD_CONTAINER_NETNS, FD_COUNT };

static const char default_socket[] = "/run/cni-py/cni.sock";
static const char magic[4] = {'C', 'N', 'I', '1'};

/* 512 bytes that `cni-py install` finds by their beginning and fills with a folder's path. */
static volatile char executables[512] = "@cni-py executables@";

static volatile sig_atomic_t pending_signal;

extern char **environ;

static void note_signal(int number)
{
    pending_signal = number;
}

static void write_all(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, data, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return;
        data += written;
        length -= (size_t)written;
    }
}

/* Prints a CNI error. `msg` and `details` have no characters that JSON escapes. */
static int refuse(int code, const char *msg, const char *details)
{
    char text[1024];
    int length = snprintf(text, sizeof text,
                          "{\n    \"cniVersion\": \"1.1.0\",\n    \"code\": %d,\n"
                          "    \"msg\": \"%s\",\n    \"details\": \"%s\"\n}",
                          code, msg, details);
    if (length > 0 && (size_t)length < sizeof text)
        write_all(STDOUT_FILENO, text, (size_t)length);
    return 1;
}

static int unavailable_code(void)
{
    const char *verb = getenv("CNI_COMMAND");
    return verb != NULL && strcmp(verb, "STATUS") == 0 ? PLUGIN_NOT_AVAILABLE : TRY_AGAIN_LATER;
}

/* Executes the Python executable of the same name; returns only where that fails. */
static int execute_python(const char *name, char **argv)
{
    char folder[sizeof executables], path[sizeof executables + NAME_MAX + 2];
    for (size_t i = 0; i < sizeof folder; i++)
        folder[i] = executables[i];
    folder[sizeof folder - 1] = '\0';
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (folder[0] == '/' && length > 0 && (size_t)length < sizeof path)
        execv(path, argv);
    return refuse(unavailable_code(), "no cni-py server is listening",
                  "start it, or install the Python executables on this host");
}

/* A connected socket; -1 where nobody listens, -2 where somebody does and does not answer. */
static int connect_server(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length >= sizeof address.sun_path)
        return -1;
    memcpy(address.sun_path, path, length + 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    struct timeval limit = {.tv_sec = CONNECT_SECONDS};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    while (connect(fd, (struct sockaddr *)&address, sizeof address) < 0) {
        if (errno == EINTR)
            continue;
        int failed = errno == EAGAIN ? -2 : -1;
        close(fd);
        return failed;
    }
    return fd;
}

/* A call, ready to be sent. */
struct call {
    char message[MAX_MESSAGE_BYTES];
    size_t length;
    int fds[FD_COUNT];
    size_t count;
};

/* The one of this process: too large for the stack. */
static struct call this_call;

/* Appends one NUL-terminated string; false where it does not fit. */
static bool append(struct call *call, const char *text)
{
    size_t size = strlen(text) + 1;
    if (size > sizeof call->message - call->length)
        return false;
    memcpy(call->message + call->length, text, size);
    call->length += size;
    return true;
}

/*
 * Finds out which standard streams are open, and fills the gaps, so that no file opened later is
 * taken for one of them. What fills a gap is closed again for an executed program.
 */
static void note_streams(int streams[3])
{
    for (int fd = 0; fd < 3; fd++) {
        streams[fd] = fcntl(fd, F_GETFD) < 0 ? -1 : fd;
        if (streams[fd] < 0 && open("/dev/null", O_RDWR | O_CLOEXEC) < 0)
            return;
    }
}

/* Prepares the call before the server is bothered; false where it does not fit. */
static bool prepare_call(struct call *call, const char *name, const int streams[3])
{
    const char *netns = getenv("CNI_NETNS");
    int fds[FD_COUNT] = {
        [FD_STDIN] = streams[STDIN_FILENO],
        [FD_STDOUT] = streams[STDOUT_FILENO],
        [FD_STDERR] = streams[STDERR_FILENO],
        [FD_OWN_NETNS] = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC),
        [FD_CWD] = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC),
        [FD_CONTAINER_NETNS] = -1,
    };
    if (netns != NULL && netns[0] != '\0')
        fds[FD_CONTAINER_NETNS] = open(netns, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    uint8_t mask = 0;
    for (int i = 0; i < FD_COUNT; i++) {
        if (fds[i] < 0)
            continue;
        mask = (uint8_t)(mask | (1U << i));
        call->fds[call->count++] = fds[i];
    }
    memcpy(call->message, magic, sizeof magic);
    call->length = sizeof magic;
    call->message[call->length++] = (char)mask;
    if (!append(call, name))
        return false;
    for (char **variable = environ; *variable != NULL; variable++)
        if (!append(call, *variable))
            return false;
    return true;
}

/* Sends the call; false where it cannot be sent, and then nothing has been. */
static bool send_call(int server, struct call *call)
{
    union {
        struct cmsghdr header;
        char space[CMSG_SPACE(sizeof call->fds)];
    } control = {.space = {0}};
    struct iovec data = {.iov_base = call->message, .iov_len = call->length};
    struct msghdr sent = {.msg_iov = &data, .msg_iovlen = 1};
    if (call->count > 0) {
        sent.msg_control = control.space;
        sent.msg_controllen = CMSG_SPACE(call->count * sizeof(int));
        struct cmsghdr *rights = CMSG_FIRSTHDR(&sent);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(call->count * sizeof(int));
        memcpy(CMSG_DATA(rights), call->fds, call->count * sizeof(int));
    }
    ssize_t done;
    do
        done = sendmsg(server, &sent, MSG_NOSIGNAL);
    while (done < 0 && errno == EINTR);
    return done == (ssize_t)call->length;
}

/* Closes what was opened for the call alone. */
static void close_call(struct call *call)
{
    for (size_t i = 0; i < call->count; i++)
        if (call->fds[i] > STDERR_FILENO)
            close(call->fds[i]);
}

static void pass_on_signal(int server)
{
    char message[2] = {'S', (char)pending_signal};
    pending_signal = 0;
    /* A server that is gone shows as the end of the connection. */
    (void)!send(server, message, sizeof message, MSG_NOSIGNAL);
}

static time_t seconds(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* Waits for the end of the call; -1 where the server went away before it had begun. */
static int await_end(int server)
{
    static char answer[MAX_ANSWER_BYTES];
    bool begun = false, writing = false;
    sigset_t unblocked;
    sigprocmask(SIG_SETMASK, NULL, &unblocked);
    sigdelset(&unblocked, SIGTERM);
    sigdelset(&unblocked, SIGINT);
    sigdelset(&unblocked, SIGHUP);
    time_t told = 0;
    for (;;) {
        struct pollfd readable = {.fd = server, .events = POLLIN};
        struct timespec limit = {.tv_sec = END_SECONDS};
        int ready = ppoll(&readable, 1, told == 0 ? NULL : &limit, &unblocked);
        if (pending_signal != 0) {
            pass_on_signal(server);
            told = told == 0 ? seconds() : told;
        }
        if (told != 0 && seconds() - told >= END_SECONDS && !writing)
            return refuse(TRY_AGAIN_LATER, "interrupted, and the cni-py server does not answer",
                          "what the call had begun is taken back by the next DEL or GC");
        if (ready <= 0)
            continue;
        ssize_t length = recv(server, answer, sizeof answer, MSG_DONTWAIT);
        /* A server that closed with a signal unread: what it has said before is still there. */
        if (length < 0 && (errno == EINTR || errno == EAGAIN || errno == ECONNRESET))
            continue;
        if (length <= 0)
            break;
        if (answer[0] == 'A') {
            begun = true;
        } else if (answer[0] == 'W') {
            writing = true;
        } else if (answer[0] == 'X' && length == 2) {
            return (unsigned char)answer[1];
        } else if (answer[0] == 'E') {
            write_all(STDOUT_FILENO, answer + 1, (size_t)length - 1);
            return 1;
        }
    }
    if (!begun)
        return -1;
    /* What is on standard output already is the document, or its beginning. */
    if (writing)
        return 1;
    return refuse(TRY_AGAIN_LATER, "the cni-py server ended during the call",
                  "what the call had begun is taken back by the next DEL or GC");
}

int main(int argc, char **argv)
{
    if (argc < 1 || argv[0] == NULL)
        return refuse(TRY_AGAIN_LATER, "started without a name", "argv[0] is the plugin's path");
    const char *slash = strrchr(argv[0], '/');
    const char *name = slash == NULL ? argv[0] : slash + 1;
    int streams[3] = {-1, -1, -1};
    note_streams(streams);
    const char *path = getenv("CNI_PY_SOCKET");
    if (path == NULL)
        path = default_socket;
    /* A runtime gives no arguments: with some it is a person's command, such as `dhcp daemon`. */
    if (argc > 1)
        return execute_python(name, argv);
    if (path[0] == '\0' || !prepare_call(&this_call, name, streams)) {
        close_call(&this_call);
        return execute_python(name, argv);
    }
    int server = connect_server(path);
    if (server == -2)
        return refuse(TRY_AGAIN_LATER, "the cni-py server is too busy to take the call",
                      "its queue was full for 10 seconds");
    if (server < 0) {
        close_call(&this_call);
        return execute_python(name, argv);
    }

    struct sigaction noted = {.sa_handler = note_signal};
    sigset_t ending;
    sigemptyset(&ending);
    const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        sigaddset(&ending, numbers[i]);
        sigaction(numbers[i], &noted, NULL);
    }
    sigset_t before;
    sigprocmask(SIG_BLOCK, &ending, &before);
    bool sent = send_call(server, &this_call);
    /* A namespace lives as long as it is open here: it is the worker's now. */
    close_call(&this_call);
    int status = sent ? await_end(server) : -1;
    if (status >= 0)
        return status;
    close(server);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return execute_python(name, argv);
}
