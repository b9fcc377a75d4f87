/* Loaded before libc: lets calls that look at the files in one folder fail, as a passing error of the system does.
 *
 * READS_UNDER   the folder; other files are ignored
 * READS_LOG     file for one line per call: its number, its kind, the path
 * READS_FAIL    number of the call that fails; READS_COUNT (1) calls from there on fail
 * READS_ONLY    kinds that are counted; by default all
 * READS_MATCH   text that a path must contain to be counted
 * READS_ERRNO   the errno of the failure
 * LOCKS_ERRNO   every lock of a file, by flock or fcntl, fails with this errno
 *
 * kinds: o open, r read, s stat, l list, m map
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static long count = 0;
static int out = -2;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }
#define REAL(name) ((__typeof__(&name))real(#name))

static long number(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text ? atol(text) : otherwise;
}

static int ours(const char *path) {
    const char *under = getenv("READS_UNDER"), *match = getenv("READS_MATCH");
    return under && strncmp(path, under, strlen(under)) == 0 && (!match || strstr(path, match));
}

static int path_of(int fd, char *path) {
    if (!getenv("READS_UNDER")) return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, 4095);
    if (n < 0) return 0;
    path[n] = 0;
    return ours(path);
}

static int path_at(int at, const char *path, char *full) {
    if (!path || !getenv("READS_UNDER")) return 0;
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
    snprintf(full, 4096, path[0] ? "%.2000s/%.2000s" : "%.2000s", folder, path);
    return ours(full);
}

/* Count a call. Returns 0 to go on, or the errno to fail with. */
static int fails(char kind, const char *path) {
    const char *only = getenv("READS_ONLY");
    if (only && !strchr(only, kind)) return 0;
    pthread_mutex_lock(&mutex);
    long n = ++count, fail = number("READS_FAIL", 0);
    if (out == -2) {
        const char *log = getenv("READS_LOG");
        out = log ? syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    }
    if (out >= 0) {
        char line[4200];
        int length = snprintf(line, sizeof line, "%ld %c %s\n", n, kind, path);
        syscall(SYS_write, out, line, length);
    }
    pthread_mutex_unlock(&mutex);
    return fail && n >= fail && n < fail + number("READS_COUNT", 1) ? number("READS_ERRNO", EIO) : 0;
}

#define FAIL_AT(kind, at, path, otherwise) \
    { char full[4096]; int bad; if (path_at(at, path, full) && (bad = fails(kind, full))) { errno = bad; return otherwise; } }
#define FAIL_OF(kind, fd, otherwise) \
    { char full[4096]; int bad; if (path_of(fd, full) && (bad = fails(kind, full))) { errno = bad; return otherwise; } }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (!(flags & O_CREAT)) FAIL_AT('o', AT_FDCWD, path, -1); \
        return REAL(name)(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (!(flags & O_CREAT)) FAIL_AT('o', at, path, -1); \
        return REAL(name)(at, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)
FILE *fopen(const char *path, const char *mode) { FAIL_AT('o', AT_FDCWD, path, NULL); return REAL(fopen)(path, mode); }
FILE *fopen64(const char *path, const char *mode) { FAIL_AT('o', AT_FDCWD, path, NULL); return REAL(fopen64)(path, mode); }

ssize_t read(int fd, void *data, size_t size) { FAIL_OF('r', fd, -1); return REAL(read)(fd, data, size); }
ssize_t pread(int fd, void *data, size_t size, off_t at) { FAIL_OF('r', fd, -1); return REAL(pread)(fd, data, size, at); }
ssize_t pread64(int fd, void *data, size_t size, off64_t at) { FAIL_OF('r', fd, -1); return REAL(pread64)(fd, data, size, at); }
ssize_t readv(int fd, const struct iovec *v, int n) { FAIL_OF('r', fd, -1); return REAL(readv)(fd, v, n); }
ssize_t sendfile(int to, int from, off_t *at, size_t size) { FAIL_OF('r', from, -1); return REAL(sendfile)(to, from, at, size); }
ssize_t sendfile64(int to, int from, off64_t *at, size_t size) { FAIL_OF('r', from, -1); return REAL(sendfile64)(to, from, at, size); }
ssize_t copy_file_range(int a, off64_t *b, int c, off64_t *d, size_t e, unsigned f) { errno = ENOSYS; return -1; }

#define STAT(name, type) int name(const char *path, struct type *s) { FAIL_AT('s', AT_FDCWD, path, -1); return REAL(name)(path, s); }
#define FSTAT(name, type) int name(int fd, struct type *s) { FAIL_OF('s', fd, -1); return REAL(name)(fd, s); }
STAT(stat, stat) STAT(lstat, stat) STAT(stat64, stat64) STAT(lstat64, stat64) FSTAT(fstat, stat) FSTAT(fstat64, stat64)
int fstatat(int at, const char *path, struct stat *s, int flags) { FAIL_AT('s', at, path, -1); return REAL(fstatat)(at, path, s, flags); }
int fstatat64(int at, const char *path, struct stat64 *s, int flags) { FAIL_AT('s', at, path, -1); return REAL(fstatat64)(at, path, s, flags); }
int statx(int at, const char *restrict path, int flags, unsigned mask, struct statx *restrict s) {
    FAIL_AT('s', at, path, -1);
    return REAL(statx)(at, path, flags, mask, s);
}
int access(const char *path, int mode) { FAIL_AT('s', AT_FDCWD, path, -1); return REAL(access)(path, mode); }
int faccessat(int at, const char *path, int mode, int flags) { FAIL_AT('s', at, path, -1); return REAL(faccessat)(at, path, mode, flags); }
/* what programs built against a libc before 2.33 call */
int __xstat(int v, const char *path, struct stat *s) { FAIL_AT('s', AT_FDCWD, path, -1); return ((int (*)(int, const char *, struct stat *))real("__xstat"))(v, path, s); }
int __lxstat(int v, const char *path, struct stat *s) { FAIL_AT('s', AT_FDCWD, path, -1); return ((int (*)(int, const char *, struct stat *))real("__lxstat"))(v, path, s); }
int __fxstat(int v, int fd, struct stat *s) { FAIL_OF('s', fd, -1); return ((int (*)(int, int, struct stat *))real("__fxstat"))(v, fd, s); }
int __xstat64(int v, const char *path, struct stat64 *s) { FAIL_AT('s', AT_FDCWD, path, -1); return ((int (*)(int, const char *, struct stat64 *))real("__xstat64"))(v, path, s); }
int __lxstat64(int v, const char *path, struct stat64 *s) { FAIL_AT('s', AT_FDCWD, path, -1); return ((int (*)(int, const char *, struct stat64 *))real("__lxstat64"))(v, path, s); }
int __fxstat64(int v, int fd, struct stat64 *s) { FAIL_OF('s', fd, -1); return ((int (*)(int, int, struct stat64 *))real("__fxstat64"))(v, fd, s); }

DIR *opendir(const char *path) { FAIL_AT('l', AT_FDCWD, path, NULL); return REAL(opendir)(path); }
DIR *fdopendir(int fd) { FAIL_OF('l', fd, NULL); return REAL(fdopendir)(fd); }
struct dirent *readdir(DIR *folder) { FAIL_OF('l', dirfd(folder), NULL); return REAL(readdir)(folder); }
struct dirent64 *readdir64(DIR *folder) { FAIL_OF('l', dirfd(folder), NULL); return REAL(readdir64)(folder); }

void *mmap(void *address, size_t size, int protection, int flags, int fd, off_t at) {
    if (!(flags & MAP_ANONYMOUS)) FAIL_OF('m', fd, MAP_FAILED);
    return (void *)syscall(SYS_mmap, address, size, protection, flags, fd, at);
}
void *mmap64(void *address, size_t size, int protection, int flags, int fd, off64_t at) {
    return mmap(address, size, protection, flags, fd, at);
}

static int no_locks(void) {
    int code = number("LOCKS_ERRNO", 0);
    if (code) errno = code;
    return code;
}
int flock(int fd, int operation) { return no_locks() ? -1 : REAL(flock)(fd, operation); }
static int is_lock(int command) {
    return command == F_SETLK || command == F_SETLKW || command == F_GETLK || command == F_OFD_SETLK ||
           command == F_OFD_SETLKW || command == F_OFD_GETLK;
}
#define FCNTL(name) \
    int name(int fd, int command, ...) { \
        va_list rest; \
        va_start(rest, command); \
        void *argument = va_arg(rest, void *); \
        va_end(rest); \
        if (is_lock(command) && no_locks()) return -1; \
        return REAL(name)(fd, command, argument); \
    }
FCNTL(fcntl)
FCNTL(fcntl64)
