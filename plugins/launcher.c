/*
 * The launcher: installed under every plugin's name, it hands the call to the warm server.
 *
 * One message on a SOCK_SEQPACKET socket carries the plugin's name, the number of the caller's mount
 * namespace, the environment, and as file descriptors: standard input, output and error, the
 * caller's own network namespace, its working directory, the namespace at CNI_NETNS, and its root
 * folder. Version 1 of the message has neither root nor mount namespace. The server's answers are
 * one letter and its arguments:
 *
 *     A          the call has begun
 *     W          a document is about to be written to standard output
 *     X status   the call has ended
 *     E text     the server refuses: text is the document to print, the status is 1
 *     V low high the server knows these versions of the message, and not the one that it got
 *     N text     this server cannot serve this caller: text says why
 *
 * A server that knows version 1 alone answers any other with an E that says so. What is sent then is
 * the newest that both know: docs/decisions/0037-callers-roots.md.
 *
 * Signals that ask this process to end are passed on as `S number`; the end of this process closes
 * the socket, which the server takes for the same. Where nobody listens, or the server goes away
 * before A, the Python executable does the call. The folder of those is written into
 * `executables` when the launcher is installed.
 *
 * A DEL can be repeated: its input is kept, so that it is handed over once more where it ends without
 * an answer. Where nobody can carry it out at all, it is written down for the next server, and the
 * runtime hears of success: docs/decisions/0029-deferred-del.md.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MAX_MESSAGE_BYTES (128 * 1024)
#define MAX_ANSWER_BYTES 4096
#define CONNECT_SECONDS 10
/* An undoing may wait 30 s for a lock, and the server ends what takes longer than twice that. */
#define END_SECONDS 100
#define IO_FAILURE 5
#define TRY_AGAIN_LATER 11
#define PLUGIN_NOT_AVAILABLE 50
/* The versions of the message that this launcher can send. */
#ifndef OLDEST_MESSAGE
#define OLDEST_MESSAGE 1
#endif
#ifndef NEWEST_MESSAGE
#define NEWEST_MESSAGE 2
#endif
/* How long a call waits for a server that is being replaced, where nobody else can serve it. */
#define WAIT_SECONDS 10
#define MAX_WAIT_SECONDS 600
#define WAIT_PAUSE_NANOSECONDS (20 * 1000 * 1000)
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

/* What may wait for a server: kubelet asks again for whatever is refused. */
#define MAX_DEFERRED_FILES 4096
#define MAX_DEFERRED_BYTES (16L * 1024 * 1024)
#define MAX_CONFIG_BYTES (1024L * 1024)
/* Of any call's input: cni_py/spec/limits.py has the same. */
#define MAX_INPUT_BYTES (16L * 1024 * 1024)

/* What `await_end` and `serve` say of a call that has no exit status. */
enum {
    NOT_BEGUN = -1,
    ENDED_WITHOUT_ANSWER = -2,
    /* The server wants another version of the message. */
    OTHER_VERSION = -3,
    /* There is none that both know. */
    NO_COMMON_VERSION = -4,
    /* The server is there, and this caller is none of those that it can serve. */
    NOT_SERVED = -5,
    /* The message has no room for the call, or whoever listens is not to be trusted. */
    UNSUITABLE = -6
};

enum {
    FD_STDIN,
    FD_STDOUT,
    FD_STDERR,
    FD_OWN_NETNS,
    FD_CWD,
    FD_CONTAINER_NETNS,
    FD_ROOT,
    FD_COUNT
};

static const char default_socket[] = "/run/cni-py/cni.sock";
static const char state_folder[] = "/run/cni-py";
static const char deferred_folder[] = "/run/cni-py/deferred";
static const char magic[3] = {'C', 'N', 'I'};
/* How the answer of a server begins that knows version 1 alone. */
static const char not_understood[] = "the call was not understood";
static const char deferred_magic[5] = {'C', 'N', 'I', 'D', '1'};

/* 512 bytes that `cni-py install` finds by their beginning and fills with a folder's path. */
static volatile char executables[512] = "@cni-py executables@";

static volatile sig_atomic_t pending_signal;
/* Whether a signal has been passed on. */
static bool interrupted;
/* The versions that the server has named. */
static int server_oldest, server_newest;
/* Why it does not serve this caller. */
static char not_served[512];

extern char **environ;

static void note_signal(int number)
{
    pending_signal = number;
}

/* Writes all of it; false where that fails. */
static bool write_all(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, data, length);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        data += written;
        length -= (size_t)written;
    }
    return true;
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

static bool is_verb(const char *wanted)
{
    const char *verb = getenv("CNI_COMMAND");
    return verb != NULL && strcmp(verb, wanted) == 0;
}

/* Executes the Python executable of the same name; where that fails, whether there is none. */
static bool execute_python(const char *name, char **argv)
{
    char folder[sizeof executables], path[sizeof executables + NAME_MAX + 2];
    for (size_t i = 0; i < sizeof folder; i++)
        folder[i] = executables[i];
    folder[sizeof folder - 1] = '\0';
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (folder[0] != '/' || length <= 0 || (size_t)length >= sizeof path)
        return true;
    execv(path, argv);
    /* A script whose interpreter is gone is not found either. */
    return errno == ENOENT || errno == ENOTDIR || errno == EACCES || errno == ENOEXEC;
}

static int refuse_without_server(const char *details)
{
    return refuse(is_verb("STATUS") ? PLUGIN_NOT_AVAILABLE : TRY_AGAIN_LATER,
                  "no cni-py server is listening", details);
}

/* Whether the server is root's or this user's own: whoever it is gets the caller's descriptors. */
static bool is_trusted(int server)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    return getsockopt(server, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 &&
           (peer.uid == 0 || peer.uid == geteuid());
}

/*
 * A connected socket; -1 where nobody listens, -2 where somebody does and does not answer, -3 where
 * it is somebody who may not serve the call.
 */
static int connect_server(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);
    if (length >= sizeof address.sun_path)
        return -3;
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
    if (!is_trusted(fd)) {
        close(fd);
        return -3;
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

static bool append_environment(struct call *call)
{
    for (char **variable = environ; *variable != NULL; variable++)
        if (**variable != '\0' && !append(call, *variable))
            return false;
    return true;
}

static bool append_number(struct call *call, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, number);
    return append(call, text);
}

/* The number of this process's mount namespace; 0 where it cannot be seen. */
static uint64_t mount_namespace(void)
{
    struct stat status;
    return stat("/proc/self/ns/mnt", &status) == 0 ? status.st_ino : 0;
}

/* Prepares the call before the server is bothered; false where it does not fit. */
static bool prepare_call(struct call *call, const char *name, const int streams[3], int version)
{
    call->count = 0;
    const char *netns = getenv("CNI_NETNS");
    int fds[FD_COUNT] = {
        [FD_STDIN] = streams[STDIN_FILENO],
        [FD_STDOUT] = streams[STDOUT_FILENO],
        [FD_STDERR] = streams[STDERR_FILENO],
        [FD_OWN_NETNS] = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC),
        [FD_CWD] = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC),
        [FD_CONTAINER_NETNS] = -1,
        [FD_ROOT] = version < 2 ? -1 : open("/", O_PATH | O_DIRECTORY | O_CLOEXEC),
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
    call->message[call->length++] = (char)('0' + version);
    call->message[call->length++] = (char)mask;
    if (!append(call, name) || (version >= 2 && !append_number(call, mount_namespace())))
        return false;
    return append_environment(call);
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
static void close_call(struct call *call, int held)
{
    for (size_t i = 0; i < call->count; i++)
        if (call->fds[i] > STDERR_FILENO && call->fds[i] != held)
            close(call->fds[i]);
}

static void pass_on_signal(int server)
{
    char message[2] = {'S', (char)pending_signal};
    pending_signal = 0;
    interrupted = true;
    /* A server that is gone shows as the end of the connection. */
    (void)!send(server, message, sizeof message, MSG_NOSIGNAL);
}

static time_t seconds(void)
{
    struct timespec now = {0};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* Keeps what the server says against this caller, as text that JSON takes as it is. */
static void note_refusal(const char *text, size_t length)
{
    size_t kept = length < sizeof not_served - 1 ? length : sizeof not_served - 1;
    for (size_t i = 0; i < kept; i++) {
        bool plain = text[i] >= ' ' && text[i] <= '~' && text[i] != '"' && text[i] != '\\';
        not_served[i] = plain ? text[i] : '?';
    }
    not_served[kept] = '\0';
}

/* Whether the server refuses this version of the message, and which ones it knows. */
static bool wants_another(const char *answer, size_t length, int version)
{
    if (answer[0] == 'V' && length == 3) {
        server_oldest = (unsigned char)answer[1];
        server_newest = (unsigned char)answer[2];
        return true;
    }
    if (answer[0] != 'E' || version == 1 ||
        memmem(answer, length, not_understood, sizeof not_understood - 1) == NULL)
        return false;
    server_oldest = server_newest = 1;
    return true;
}

/* Waits for the end of the call: its exit status, or what there is instead of one. */
static int await_end(int server, int version)
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
        if (!begun && wants_another(answer, (size_t)length, version))
            return OTHER_VERSION;
        if (answer[0] == 'A') {
            begun = true;
        } else if (answer[0] == 'W') {
            writing = true;
        } else if (answer[0] == 'X' && length == 2) {
            return (unsigned char)answer[1];
        } else if (answer[0] == 'E') {
            write_all(STDOUT_FILENO, answer + 1, (size_t)length - 1);
            return 1;
        } else if (answer[0] == 'N' && !begun) {
            note_refusal(answer + 1, (size_t)length - 1);
            return NOT_SERVED;
        }
    }
    if (!begun)
        return NOT_BEGUN;
    /* What is on standard output already is the document, or its beginning. */
    return writing ? 1 : ENDED_WITHOUT_ANSWER;
}

/* Hands the call over in one version of the message, and waits for its end. */
static int serve_as(int version, const char *name, const char *path, const int streams[3], int held)
{
    if (!prepare_call(&this_call, name, streams, version)) {
        close_call(&this_call, held);
        return UNSUITABLE;
    }
    int server = connect_server(path);
    if (server < 0)
        close_call(&this_call, held);
    if (server == -2)
        return refuse(TRY_AGAIN_LATER, "the cni-py server is too busy to take the call",
                      "its queue was full for 10 seconds");
    if (server < 0)
        return server == -3 ? UNSUITABLE : NOT_BEGUN;

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
    close_call(&this_call, held);
    int status = sent ? await_end(server, version) : NOT_BEGUN;
    close(server);
    sigprocmask(SIG_SETMASK, &before, NULL);
    return status;
}

/* The newest version below `refused` that the server has named too; 0 where there is none. */
static int next_version(int refused)
{
    int version = server_newest < refused ? server_newest : refused - 1;
    return version >= server_oldest && version >= OLDEST_MESSAGE ? version : 0;
}

/* Hands the call over and waits: its exit status, or what there is instead of one. */
static int serve(const char *name, const char *path, const int streams[3], int held)
{
    int version = NEWEST_MESSAGE;
    for (;;) {
        int status = serve_as(version, name, path, streams, held);
        if (status != OTHER_VERSION)
            return status;
        /* Each turn has a lower version. */
        version = next_version(version);
        if (version == 0)
            return NO_COMMON_VERSION;
    }
}

/* Whether the folder of the socket is there: then a server has been, and may be again. */
static bool has_folder(const char *path)
{
    char folder[sizeof(((struct sockaddr_un *)0)->sun_path)];
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 0 : (size_t)(slash - path);
    struct stat status;
    if (length == 0 || length >= sizeof folder)
        return false;
    memcpy(folder, path, length);
    folder[length] = '\0';
    return stat(folder, &status) == 0 && S_ISDIR(status.st_mode);
}

static time_t seconds_to_wait(void)
{
    const char *given = getenv("CNI_PY_WAIT_SECONDS");
    char *end;
    if (given == NULL || *given == '\0')
        return WAIT_SECONDS;
    long wanted = strtol(given, &end, 10);
    return *end != '\0' || wanted < 0 || wanted > MAX_WAIT_SECONDS ? WAIT_SECONDS : wanted;
}

/*
 * Tries until somebody listens: a server that is being replaced, or that has just crashed, is there
 * again within seconds, and nobody else can serve the call.
 */
static int serve_later(const char *name, const char *path, const int streams[3])
{
    const struct timespec pause = {.tv_nsec = WAIT_PAUSE_NANOSECONDS};
    time_t end = seconds() + seconds_to_wait();
    int status = NOT_BEGUN;
    while (status == NOT_BEGUN && has_folder(path) && seconds() < end) {
        nanosleep(&pause, NULL);
        /* One that came during a try, before its call had begun. */
        if (pending_signal != 0)
            return NOT_BEGUN;
        status = serve(name, path, streams, -1);
    }
    return status;
}

/*
 * Copies standard input into memory, so that it can be read more than once. Returns -1 where that
 * cannot be begun, and -2 where it fails halfway.
 */
static int hold_stdin(void)
{
    static char piece[64 * 1024];
    ssize_t total = 0;
    int held = memfd_create("stdin", MFD_CLOEXEC);
    if (held < 0)
        return -1;
    for (;;) {
        ssize_t length = read(STDIN_FILENO, piece, sizeof piece);
        if (length < 0 && errno == EINTR)
            continue;
        if (length == 0 && lseek(held, 0, SEEK_SET) == 0)
            return held;
        total += length;
        if (total > MAX_INPUT_BYTES)
            errno = EFBIG;
        if (length <= 0 || total > MAX_INPUT_BYTES ||
            write(held, piece, (size_t)length) != length) {
            close(held);
            return -2;
        }
    }
}

/* The folder of deferred DELs, which only its owner may see; -1 where there can be none. */
static int open_deferred_folder(void)
{
    if (mkdir(state_folder, 0700) < 0 && errno != EEXIST)
        return -1;
    if (mkdir(deferred_folder, 0700) < 0 && errno != EEXIST)
        return -1;
    int folder = open(deferred_folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    struct stat status;
    if (folder >= 0 && (fstat(folder, &status) < 0 || status.st_uid != geteuid() ||
                        (status.st_mode & (S_IWGRP | S_IWOTH)) != 0)) {
        close(folder);
        return -1;
    }
    return folder;
}

/* Whether another file of that size has room in the folder. */
static bool has_room(int folder, long size)
{
    int again = dup(folder);
    DIR *listing = again < 0 ? NULL : fdopendir(again);
    if (listing == NULL)
        return false;
    long files = 0, bytes = size;
    struct stat status;
    for (struct dirent *entry; (entry = readdir(listing)) != NULL; files++)
        if (fstatat(folder, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
            bytes += status.st_size;
    closedir(listing);
    /* Two of the entries are the folder and its parent. */
    return files - 2 < MAX_DEFERRED_FILES && bytes <= MAX_DEFERRED_BYTES;
}

/* The number of this process's network namespace, which no other one gets until the next boot. */
static uint64_t netns_cookie(void)
{
    uint64_t cookie = 0;
    socklen_t length = sizeof cookie;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return 0;
    if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &length) < 0)
        cookie = 0;
    close(fd);
    return cookie;
}

/* The same of the container's, where this process stays: it has nothing else to do. 0 for none. */
static uint64_t enter_container(void)
{
    const char *netns = getenv("CNI_NETNS");
    if (netns == NULL || netns[0] == '\0')
        return 0;
    int fd = open(netns, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return 0;
    bool entered = setns(fd, CLONE_NEWNET) == 0;
    close(fd);
    return entered ? netns_cookie() : 0;
}

static bool append_boot(struct call *call)
{
    char text[64] = "";
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t length = read(fd, text, sizeof text - 1);
    close(fd);
    text[length > 0 && text[length - 1] == '\n' ? length - 1 : 0] = '\0';
    return text[0] != '\0' && append(call, text);
}

/*
 * What comes before the input: NUL-terminated strings, the environment's ended by an empty one.
 * cni_py/kernel/deferred.py is the other side.
 */
static bool prepare_deferred(struct call *call, const char *name, long size)
{
    char cwd[PATH_MAX];
    uint64_t mounts = mount_namespace();
    if (getcwd(cwd, sizeof cwd) == NULL || mounts == 0)
        return false;
    memcpy(call->message, deferred_magic, sizeof deferred_magic);
    call->length = sizeof deferred_magic;
    return append(call, name) && append_boot(call) && append_number(call, netns_cookie()) &&
           append_number(call, mounts) && append_number(call, enter_container()) &&
           append(call, cwd) && append_number(call, (uint64_t)size) &&
           append_environment(call) && append(call, "");
}

/* FNV-1a of the container's id and the interface's name, by which an ADD finds what comes first. */
static uint64_t attachment_hash(void)
{
    const char *parts[] = {getenv("CNI_CONTAINERID"), "/", getenv("CNI_IFNAME")};
    uint64_t hash = 0xcbf29ce484222325U;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        for (const char *at = parts[i]; *at != '\0'; at++)
            hash = (hash ^ (unsigned char)*at) * 0x100000001b3U;
    return hash;
}

/* Gives the file a name, by which it comes after all that were written before. */
static bool name_deferred(int folder, int file)
{
    char self[64], name[64];
    struct timespec now = {0};
    clock_gettime(CLOCK_BOOTTIME, &now);
    uint64_t time = (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
    snprintf(self, sizeof self, "/proc/self/fd/%d", file);
    do
        snprintf(name, sizeof name, "%020" PRIu64 "-%016" PRIx64, time++, attachment_hash());
    while (linkat(AT_FDCWD, self, folder, name, AT_SYMLINK_FOLLOW) < 0 && errno == EEXIST);
    struct stat status;
    return fstat(file, &status) == 0 && status.st_nlink == 1;
}

/* Writes a DEL down for the next server; the file appears whole or not at all. */
static bool defer(const char *name, int held)
{
    const char *required[] = {"CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"};
    for (size_t i = 0; i < sizeof required / sizeof required[0]; i++) {
        const char *value = getenv(required[i]);
        if (value == NULL || value[0] == '\0')
            return false;
    }
    off_t size = lseek(held, 0, SEEK_END);
    if (size < 0 || size > MAX_CONFIG_BYTES || !prepare_deferred(&this_call, name, (long)size))
        return false;
    int folder = open_deferred_folder();
    if (folder < 0)
        return false;
    bool done = false;
    int file = -1;
    if (has_room(folder, (long)size + (long)this_call.length))
        file = openat(folder, ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
    if (file >= 0) {
        void *input = size == 0 ? NULL : mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, held, 0);
        done = input != MAP_FAILED && write_all(file, this_call.message, this_call.length) &&
               write_all(file, input, (size_t)size) && name_deferred(folder, file);
        close(file);
    }
    close(folder);
    return done;
}

/* Says why nobody has carried the call out. */
static int give_up(int status)
{
    char details[160];
    switch (status) {
    case ENDED_WITHOUT_ANSWER:
        return refuse(TRY_AGAIN_LATER, "the cni-py server ended during the call",
                      "what the call had begun is taken back by the next DEL or GC");
    case NOT_SERVED:
        return refuse(TRY_AGAIN_LATER, "the cni-py server cannot serve this caller", not_served);
    case NO_COMMON_VERSION:
        snprintf(details, sizeof details,
                 "it knows versions %d to %d of the call, the launcher %d to %d: "
                 "install both from one release",
                 server_oldest, server_newest, OLDEST_MESSAGE, NEWEST_MESSAGE);
        return refuse(TRY_AGAIN_LATER, "the cni-py server and the launcher are too far apart",
                      details);
    default:
        return refuse_without_server("start it, or install the Python executables on this host");
    }
}

/* What a DEL comes to that nobody can carry out now. */
static int put_off(const char *name, int held, int status)
{
    if (defer(name, held)) {
        static const char told[] = "cni-py: no server serves this: DEL is deferred until one does\n";
        (void)!write(STDERR_FILENO, told, sizeof told - 1);
        return 0;
    }
    if (status != NOT_BEGUN)
        return give_up(status);
    return refuse_without_server("and DEL cannot be deferred to /run/cni-py/deferred, which may "
                                 "be full; start it, or install the Python executables");
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
    if (argc > 1 || path[0] == '\0') {
        execute_python(name, argv);
        return give_up(NOT_BEGUN);
    }

    int held = -1;
    if (is_verb("DEL") && streams[STDIN_FILENO] >= 0)
        held = hold_stdin();
    if (held == -2)
        return errno == EFBIG
                   ? refuse(IO_FAILURE, "the network configuration has more than 16777216 bytes",
                            "it is read from stdin until its end")
                   : refuse(TRY_AGAIN_LATER, "the call's input cannot be read", strerror(errno));
    if (held >= 0)
        streams[STDIN_FILENO] = held;
    int status = serve(name, path, streams, held);
    /* A DEL finds done what the first one did. One that somebody interrupted is not wanted. */
    if (status == ENDED_WITHOUT_ANSWER && held >= 0 && pending_signal == 0 && !interrupted) {
        lseek(held, 0, SEEK_SET);
        status = serve(name, path, streams, held);
    }
    if (status >= 0 || status == ENDED_WITHOUT_ANSWER)
        return status >= 0 ? status : give_up(status);

    if (held >= 0 && (lseek(held, 0, SEEK_SET) < 0 || dup2(held, STDIN_FILENO) < 0))
        return refuse(TRY_AGAIN_LATER, "the call's input cannot be read again", strerror(errno));
    bool has_python = !execute_python(name, argv);
    if (held >= 0 && !has_python)
        return put_off(name, held, status);
    if (status == NOT_BEGUN && held < 0 && !has_python)
        status = serve_later(name, path, streams);
    return status >= 0 ? status : give_up(status);
}
