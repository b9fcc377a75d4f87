/* Loaded before libc: records what a process does to the files in one folder, kills the process at the n-th step, or
 * makes the n-th step fail.
 *
 * RECORDER_UNDER   the folder; other files are ignored
 * RECORDER_LOG     file for the records of all steps, with the bytes written
 * RECORDER_KILL    number of the step before which the process kills itself
 * RECORDER_FAIL    number of the step that fails; with RECORDER_STICKY=1 every later write fails too
 * RECORDER_ERRNO   the errno of the failure
 *
 * A record: u8 kind, u32 step, u32 length of the path, path, u64 offset, u64 length of the data, data.
 * kinds: w write, t truncate, s fsync or fdatasync (also of folders), r rename (data: the new path), u unlink,
 * l hard link (data: the new path), c create, m mkdir, d rmdir
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(#name))

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long count = 0;
static int out = -2;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

static int ours(const char *path) {
    const char *under = getenv("RECORDER_UNDER");
    return under && strncmp(path, under, strlen(under)) == 0;
}

static int whole(int at, const char *path, char *full) {
    if (path[0] == '/') { snprintf(full, 4096, "%s", path); return ours(full); }
    char folder[4096];
    if (at == AT_FDCWD) { if (!getcwd(folder, sizeof folder)) return 0; }
    else {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", at);
        ssize_t n = readlink(link, folder, sizeof folder - 1);
        if (n < 0) return 0;
        folder[n] = 0;
    }
    snprintf(full, 4096, "%.2000s/%.2000s", folder, path);
    return ours(full);
}

static int of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, 4095);
    if (n < 0) return 0;
    path[n] = 0;
    return ours(path);
}

static void put(const void *data, size_t size) {
    ssize_t (*w)(int, const void *, size_t) = real("write");
    const char *p = data;
    while (size) {
        ssize_t n = w(out, p, size);
        if (n <= 0) return;
        p += n;
        size -= n;
    }
}

/* Count a step. Returns 0 to go on, or the errno to fail with. The mutex is held until done(). */
static int step(char kind, const char *path, uint64_t offset, const void *data, uint64_t length) {
    pthread_mutex_lock(&mutex);
    long n = ++count;
    if (out == -2) {
        const char *log = getenv("RECORDER_LOG");
        int (*o)(const char *, int, ...) = real("open");
        out = log ? o(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    }
    if (number("RECORDER_KILL") == n) kill(getpid(), SIGKILL);
    long fail = number("RECORDER_FAIL");
    int sticky = number("RECORDER_STICKY") && (kind == 'w' || kind == 'c' || kind == 'm');
    if (fail && (n == fail || (n > fail && sticky))) {
        long e = number("RECORDER_ERRNO");
        return e ? e : EIO;
    }
    if (out >= 0) {
        uint32_t s = n, l = strlen(path);
        put(&kind, 1); put(&s, 4); put(&l, 4); put(path, l); put(&offset, 8); put(&length, 8); put(data, length);
    }
    return 0;
}

static void done(void) { pthread_mutex_unlock(&mutex); }

#define STEP(result, kind, path, offset, data, length, call) \
    int bad = step(kind, path, offset, data, length); \
    if (bad) { done(); errno = bad; return -1; } \
    result = call; \
    done();

ssize_t write(int fd, const void *data, size_t size) {
    char path[4096];
    ssize_t n;
    if (!of(fd, path)) return REAL(write)(fd, data, size);
    struct stat s;
    off_t at = fcntl(fd, F_GETFL) & O_APPEND ? (fstat(fd, &s), s.st_size) : lseek(fd, 0, SEEK_CUR);
    STEP(n, 'w', path, at, data, size, REAL(write)(fd, data, size));
    return n;
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    char path[4096];
    ssize_t n;
    if (!of(fd, path)) return REAL(pwrite)(fd, data, size, at);
    STEP(n, 'w', path, at, data, size, REAL(pwrite)(fd, data, size, at));
    return n;
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return pwrite(fd, data, size, at); }

#define SYNC(name) \
    int name(int fd) { \
        char path[4096]; \
        int n; \
        if (!of(fd, path)) return REAL(name)(fd); \
        STEP(n, 's', path, 0, "", 0, 0); \
        return n; \
    }
SYNC(fsync)
SYNC(fdatasync)

int ftruncate(int fd, off_t size) {
    char path[4096];
    int n;
    if (!of(fd, path)) return REAL(ftruncate)(fd, size);
    STEP(n, 't', path, size, "", 0, REAL(ftruncate)(fd, size));
    return n;
}
int ftruncate64(int fd, off_t size) { return ftruncate(fd, size); }

#define ONE(name, kind, arguments, declared) \
    int name declared { \
        char full[4096]; \
        int n; \
        if (!whole(AT_FDCWD, path, full)) return REAL(name) arguments; \
        STEP(n, kind, full, 0, "", 0, REAL(name) arguments); \
        return n; \
    }
ONE(unlink, 'u', (path), (const char *path))
ONE(remove, 'u', (path), (const char *path))
ONE(rmdir, 'd', (path), (const char *path))
ONE(mkdir, 'm', (path, mode), (const char *path, mode_t mode))

int unlinkat(int at, const char *path, int flags) {
    char full[4096];
    int n;
    if (!whole(at, path, full)) return REAL(unlinkat)(at, path, flags);
    STEP(n, flags & AT_REMOVEDIR ? 'd' : 'u', full, 0, "", 0, REAL(unlinkat)(at, path, flags));
    return n;
}

int rename(const char *from, const char *to) {
    char full[4096], other[4096];
    int n;
    if (!whole(AT_FDCWD, from, full) || !whole(AT_FDCWD, to, other)) return REAL(rename)(from, to);
    STEP(n, 'r', full, 0, other, strlen(other), REAL(rename)(from, to));
    return n;
}

int link(const char *from, const char *to) {
    char full[4096], other[4096];
    int n;
    if (!whole(AT_FDCWD, from, full) || !whole(AT_FDCWD, to, other)) return REAL(link)(from, to);
    STEP(n, 'l', full, 0, other, strlen(other), REAL(link)(from, to));
    return n;
}

int linkat(int at, const char *from, int target, const char *to, int flags) {
    char full[4096], other[4096];
    int n;
    if (!whole(at, from, full) || !whole(target, to, other)) return REAL(linkat)(at, from, target, to, flags);
    STEP(n, 'l', full, 0, other, strlen(other), REAL(linkat)(at, from, target, to, flags));
    return n;
}

static int opened(int (*call)(const char *, int, ...), const char *path, int flags, mode_t mode) {
    char full[4096];
    int n;
    struct stat s;
    if (!(flags & (O_CREAT | O_TRUNC)) || !whole(AT_FDCWD, path, full)) return call(path, flags, mode);
    int there = stat(path, &s) == 0;
    if (there && !(flags & O_TRUNC)) return call(path, flags, mode);
    STEP(n, there ? 't' : 'c', full, 0, "", 0, call(path, flags, mode));
    return n;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        return opened(real(#name), path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

/* Copies inside the kernel would not be recorded: refuse them, and Python falls back to read and write. */
ssize_t sendfile(int out_fd, int in_fd, off_t *offset, size_t size) { errno = ENOTSOCK; return -1; }
ssize_t sendfile64(int out_fd, int in_fd, off_t *offset, size_t size) { errno = ENOTSOCK; return -1; }
ssize_t copy_file_range(int a, off_t *b, int c, off_t *d, size_t e, unsigned f) { errno = ENOSYS; return -1; }
