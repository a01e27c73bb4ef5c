/* Faults of disks and clocks for a process and its children, put between them and the C library by LD_PRELOAD.
 *
 * FAULT_READS       part of the paths whose reads are meant
 * FAULT_READ_ERRNO  what these reads fail with, FAULT_READ_TIMES times (counted over all processes), after
 *                   FAULT_READ_AFTER reads that succeed
 * FAULT_READ_US     how long each of these reads takes, in microseconds
 * FAULT_WRITES      part of the paths whose changes are meant: creating, writing, renaming, removing, syncing
 * FAULT_KILL_AT     number of the change before which the whole process group is killed
 * FAULT_WRITE_ERRNO what changes fail with from number FAULT_WRITE_AFTER on
 * FAULT_CLOCK_S     by how many seconds the wall clock is off, forth and back with every second look at it
 * FAULT_COUNTERS    file of 4,096 bytes in which reads and changes are counted
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { READS, CHANGES, LOOKS, COUNTERS };
static atomic_long *counters;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

static atomic_long *counter(int which) {
    if (!counters) {
        const char *path = getenv("FAULT_COUNTERS");
        int file = path ? REAL(open)(path, O_RDWR) : -1;
        void *shared = MAP_FAILED;
        if (file >= 0) {
            shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
            close(file);
        }
        static atomic_long own[COUNTERS];
        counters = shared == MAP_FAILED ? own : shared;
    }
    return &counters[which];
}

static int meant(const char *variable, const char *path) {
    const char *part = getenv(variable);
    return part && *part && path && strstr(path, part) != NULL;
}

static int meant_file(const char *variable, int file) {
    if (!getenv(variable)) return 0;
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return meant(variable, path);
}

/* A read of a file is about to happen; returns whether it fails, with errno set. */
static int read_fails(int file) {
    if (!meant_file("FAULT_READS", file)) return 0;
    long pause = number("FAULT_READ_US", 0);
    if (pause) usleep(pause);
    long error = number("FAULT_READ_ERRNO", 0);
    if (!error) return 0;
    long after = number("FAULT_READ_AFTER", 0);
    long count = atomic_fetch_add(counter(READS), 1);
    if (count < after || count >= after + number("FAULT_READ_TIMES", LONG_MAX / 2)) return 0;
    errno = error;
    return 1;
}

/* A change is about to happen; may never return. */
static int change_fails(void) {
    long count = atomic_fetch_add(counter(CHANGES), 1);
    if (count == number("FAULT_KILL_AT", -1)) {
        kill(0, SIGKILL);
        pause();
    }
    long error = number("FAULT_WRITE_ERRNO", 0);
    if (!error || count < number("FAULT_WRITE_AFTER", 0)) return 0;
    errno = error;
    return 1;
}

#define CHANGES_PATH(path) (meant("FAULT_WRITES", path) && change_fails())
#define CHANGES_FILE(file) (meant_file("FAULT_WRITES", file) && change_fails())

ssize_t read(int file, void *to, size_t count) {
    return read_fails(file) ? -1 : REAL(read)(file, to, count);
}
ssize_t pread(int file, void *to, size_t count, off_t at) {
    return read_fails(file) ? -1 : REAL(pread)(file, to, count, at);
}
ssize_t pread64(int file, void *to, size_t count, off64_t at) {
    return read_fails(file) ? -1 : REAL(pread64)(file, to, count, at);
}
ssize_t preadv(int file, const struct iovec *to, int count, off_t at) {
    return read_fails(file) ? -1 : REAL(preadv)(file, to, count, at);
}
ssize_t preadv64(int file, const struct iovec *to, int count, off64_t at) {
    return read_fails(file) ? -1 : REAL(preadv64)(file, to, count, at);
}
size_t fread(void *to, size_t size, size_t count, FILE *stream) {
    return read_fails(fileno(stream)) ? 0 : REAL(fread)(to, size, count, stream);
}

ssize_t write(int file, const void *from, size_t count) {
    return CHANGES_FILE(file) ? -1 : REAL(write)(file, from, count);
}
ssize_t writev(int file, const struct iovec *from, int count) {
    return CHANGES_FILE(file) ? -1 : REAL(writev)(file, from, count);
}
ssize_t pwrite(int file, const void *from, size_t count, off_t at) {
    return CHANGES_FILE(file) ? -1 : REAL(pwrite)(file, from, count, at);
}
ssize_t pwrite64(int file, const void *from, size_t count, off64_t at) {
    return CHANGES_FILE(file) ? -1 : REAL(pwrite64)(file, from, count, at);
}
int ftruncate(int file, off_t length) { return CHANGES_FILE(file) ? -1 : REAL(ftruncate)(file, length); }
int ftruncate64(int file, off64_t length) { return CHANGES_FILE(file) ? -1 : REAL(ftruncate64)(file, length); }
int fsync(int file) { return CHANGES_FILE(file) ? -1 : REAL(fsync)(file); }
int posix_fallocate(int file, off_t at, off_t length) {
    return CHANGES_FILE(file) ? errno : REAL(posix_fallocate)(file, at, length);
}
int posix_fallocate64(int file, off64_t at, off64_t length) {
    return CHANGES_FILE(file) ? errno : REAL(posix_fallocate64)(file, at, length);
}
int rename(const char *from, const char *to) { return CHANGES_PATH(to) ? -1 : REAL(rename)(from, to); }
int mkdir(const char *path, mode_t mode) { return CHANGES_PATH(path) ? -1 : REAL(mkdir)(path, mode); }
int rmdir(const char *path) { return CHANGES_PATH(path) ? -1 : REAL(rmdir)(path); }
int unlinkat(int folder, const char *path, int flags) {
    return CHANGES_FILE(folder) ? -1 : REAL(unlinkat)(folder, path, flags);
}
int unlink(const char *path) { return CHANGES_PATH(path) ? -1 : REAL(unlink)(path); }

#define OPEN(name)                                                                         \
    int name(const char *path, int flags, ...) {                                           \
        mode_t mode = 0;                                                                   \
        if (flags & (O_CREAT | O_TMPFILE)) {                                               \
            va_list rest;                                                                  \
            va_start(rest, flags);                                                         \
            mode = va_arg(rest, mode_t);                                                   \
            va_end(rest);                                                                  \
        }                                                                                  \
        if ((flags & O_CREAT) && CHANGES_PATH(path)) return -1;                            \
        return REAL(name)(path, flags, mode);                                              \
    }
OPEN(open)
OPEN(open64)

int clock_gettime(clockid_t clock, struct timespec *now) {
    int result = REAL(clock_gettime)(clock, now);
    long off = number("FAULT_CLOCK_S", 0);
    if (off && clock == CLOCK_REALTIME && result == 0 && atomic_fetch_add(counter(LOOKS), 1) % 2) now->tv_sec += off;
    return result;
}
