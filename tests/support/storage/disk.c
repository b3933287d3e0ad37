/* A disk that tells what is done to it, and fails on demand: preloaded in front of the C library.
 *
 * Of every file below one folder it takes down, in the order in which they happened and with their data, the calls
 * that decide what a disk holds after a power loss. It can make the n-th call of a kind fail, all from the n-th on,
 * take half of a write and then no more, and make a sync slow. Nothing outside of the folder is touched.
 *
 * SQLite's -shm file is mapped and rebuilt at each start, so it is not taken down; calls on it can fail all the same.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind {
    WRITE = 1, SYNC = 2, SYNCDIR = 4, TRUNCATE = 8, CREATE = 16, RENAME = 32, UNLINK = 64, MKDIR = 128,
    ALLOCATE = 256, READ = 512, MARK = 1024
};
enum mode { ONCE = 0, ON = 1, UNTIL_SPACE = 2, HALF = 3 };

#define MOST_FILES 65536
struct file { uint64_t inode; char traced, folder, inside; };
static struct file files[MOST_FILES];

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static int trace = -1;
static int without_sync, slow_ms;
static int fail_kinds, fail_errno, fail_mode;
static long fail_at, seen;
static int fired;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_read)(int, void *, size_t);
static ssize_t (*real_pread)(int, void *, size_t, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_ftruncate)(int, off_t);
static int (*real_fallocate)(int, off_t, off_t);
static int (*real_rename)(const char *, const char *);
static int (*real_unlink)(const char *);
static int (*real_mkdir)(const char *, mode_t);

__attribute__((constructor)) static void load(void)
{
    real_open = dlsym(RTLD_NEXT, "open64");
    real_openat = dlsym(RTLD_NEXT, "openat64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_read = dlsym(RTLD_NEXT, "read");
    real_pread = dlsym(RTLD_NEXT, "pread64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fallocate = dlsym(RTLD_NEXT, "posix_fallocate64");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_mkdir = dlsym(RTLD_NEXT, "mkdir");
}

/* What Python calls through ctypes. */

void disk_watch(const char *folder, int trace_descriptor)
{
    pthread_mutex_lock(&lock);
    snprintf(root, sizeof root, "%s", folder);
    root_length = strlen(root);
    trace = trace_descriptor;
    memset(files, 0, sizeof files);
    fail_kinds = without_sync = slow_ms = 0;
    seen = 0;
    fired = 0;
    pthread_mutex_unlock(&lock);
}

void disk_fail(int kinds, long at, int error, int mode)
{
    pthread_mutex_lock(&lock);
    fail_kinds = kinds, fail_at = at, fail_errno = error, fail_mode = mode, seen = 0, fired = 0;
    pthread_mutex_unlock(&lock);
}

void disk_sync(int skipped, int milliseconds) { without_sync = skipped, slow_ms = milliseconds; }
int disk_fired(void) { return fired; }
long disk_seen(void) { return seen; }

/* The rest is called with the lock held, except where it says otherwise. */

static void put(const void *bytes, size_t length)
{
    for (const char *at = bytes; length;) {
        ssize_t done = real_write(trace, at, length);
        if (done <= 0) abort();
        at += done, length -= (size_t)done;
    }
}

static void record(enum kind kind, uint64_t a, uint64_t b, const void *first, size_t length, const char *second)
{
    if (trace < 0) return;
    uint64_t head[5] = {kind, a, b, length, second ? strlen(second) : 0};
    put(head, sizeof head);
    if (length) put(first, length);
    if (second) put(second, strlen(second));
}

void disk_mark(const char *text)
{
    pthread_mutex_lock(&lock);
    record(MARK, 0, 0, text, strlen(text), NULL);
    pthread_mutex_unlock(&lock);
}

/* Gives the part of a path below the watched folder, "" for the folder itself, NULL for what lies elsewhere. */
static const char *below(const char *path)
{
    if (!root_length || strncmp(path, root, root_length)) return NULL;
    if (path[root_length] == '/') return path + root_length + 1;
    return path[root_length] ? NULL : path + root_length;
}

static int is_shm(const char *path)
{
    size_t length = strlen(path);
    return length >= 4 && !strcmp(path + length - 4, "-shm");
}

/* Counts a call and gives the error it must end with, 0 for none, -1 for a write of which half is taken. */
static int verdict(enum kind kind)
{
    if (!(fail_kinds & kind)) return 0;
    seen++;
    if (seen < fail_at || (fail_mode == ONCE && seen > fail_at)) return 0;
    int half = fail_mode == HALF && !fired && kind == WRITE;
    fired = 1;
    return half ? -1 : fail_errno;
}

static void space_made(void)
{
    if (fail_mode == UNTIL_SPACE && fired) fail_kinds = 0;
}

static struct file *file_of(int fd)
{
    return fd >= 0 && fd < MOST_FILES && files[fd].inside ? &files[fd] : NULL;
}

static int opened(const char *path, int flags, mode_t mode, int at)
{
    const char *name = below(path);
    if (!name) return real_openat(at, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat before, after;
    int there = !stat(path, &before);
    int fails = (flags & O_CREAT) && !there ? verdict(CREATE) : 0;
    int fd = -1;
    if (fails) {
        errno = fails;
    } else if ((fd = real_openat(at, path, flags, mode)) >= 0 && fd < MOST_FILES && !fstat(fd, &after)) {
        int traced = S_ISREG(after.st_mode) && !is_shm(name);
        files[fd] = (struct file){after.st_ino, traced, S_ISDIR(after.st_mode), 1};
        if (traced && !there) record(CREATE, after.st_ino, 0, name, strlen(name), NULL);
        if (traced && there && (flags & O_TRUNC)) record(TRUNCATE, after.st_ino, 0, NULL, 0, NULL);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPENING(name, at_parameter, at)                                                                             \
    int name(at_parameter const char *path, int flags, ...)                                                         \
    {                                                                                                               \
        va_list more;                                                                                               \
        va_start(more, flags);                                                                                      \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0;                                   \
        va_end(more);                                                                                               \
        return opened(path, flags, mode, at);                                                                       \
    }
#define COMMA ,
OPENING(open, , AT_FDCWD)
OPENING(open64, , AT_FDCWD)
OPENING(openat, int at COMMA, at)
OPENING(openat64, int at COMMA, at)

int close(int fd)
{
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < MOST_FILES) files[fd].inside = 0;
    pthread_mutex_unlock(&lock);
    return real_close(fd);
}

static ssize_t written(int fd, const void *bytes, size_t length, off_t offset, int seeking)
{
    if (!file_of(fd)) return seeking ? real_write(fd, bytes, length) : real_pwrite(fd, bytes, length, offset);
    pthread_mutex_lock(&lock);
    struct file *file = file_of(fd);
    if (seeking) offset = lseek(fd, 0, SEEK_CUR);
    int fails = verdict(WRITE);
    ssize_t done = -1;
    if (fails > 0) {
        errno = fails;
    } else {
        if (fails < 0) length = (length + 1) / 2;
        done = seeking ? real_write(fd, bytes, length) : real_pwrite(fd, bytes, length, offset);
        if (done > 0 && file && file->traced) record(WRITE, file->inode, (uint64_t)offset, bytes, (size_t)done, NULL);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *bytes, size_t length) { return written(fd, bytes, length, 0, 1); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return written(fd, bytes, length, at, 0); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) { return written(fd, bytes, length, at, 0); }

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    ssize_t sum = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (done < 0) return sum ? sum : -1;
        sum += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return sum;
}

static int read_fails(int fd)
{
    if (!(fail_kinds & READ) || !file_of(fd)) return 0;
    pthread_mutex_lock(&lock);
    int fails = verdict(READ);
    pthread_mutex_unlock(&lock);
    if (fails) errno = fails;
    return fails;
}

ssize_t read(int fd, void *bytes, size_t length) { return read_fails(fd) ? -1 : real_read(fd, bytes, length); }
ssize_t pread(int fd, void *bytes, size_t length, off_t at)
{
    return read_fails(fd) ? -1 : real_pread(fd, bytes, length, at);
}
ssize_t pread64(int fd, void *bytes, size_t length, off_t at)
{
    return read_fails(fd) ? -1 : real_pread(fd, bytes, length, at);
}

static int synced(int fd, int (*real)(int))
{
    if (!file_of(fd)) return real(fd);
    if (slow_ms) nanosleep(&(struct timespec){slow_ms / 1000, slow_ms % 1000 * 1000000L}, NULL);
    pthread_mutex_lock(&lock);
    struct file *file = file_of(fd);
    int fails = file ? verdict(file->folder ? SYNCDIR : SYNC) : 0, result = -1;
    if (fails) {
        if (file->traced) record(SYNC, file->inode, 1, NULL, 0, NULL);
        errno = fails;
    } else {
        result = without_sync ? 0 : real(fd);
        if (!result && file && (file->traced || file->folder))
            record(file->folder ? SYNCDIR : SYNC, file->inode, 0, NULL, 0, NULL);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) { return synced(fd, real_fsync); }
int fdatasync(int fd) { return synced(fd, real_fdatasync); }

static int truncated(int fd, off_t length)
{
    if (!file_of(fd)) return real_ftruncate(fd, length);
    pthread_mutex_lock(&lock);
    struct file *file = file_of(fd);
    int fails = verdict(TRUNCATE), result = -1;
    if (fails) {
        errno = fails;
    } else if (!(result = real_ftruncate(fd, length)) && file && file->traced) {
        record(TRUNCATE, file->inode, (uint64_t)length, NULL, 0, NULL);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t length) { return truncated(fd, length); }
int ftruncate64(int fd, off_t length) { return truncated(fd, length); }

static int allocated(int fd, off_t offset, off_t length)
{
    if (!file_of(fd)) return real_fallocate(fd, offset, length);
    pthread_mutex_lock(&lock);
    struct file *file = file_of(fd);
    int result = verdict(ALLOCATE);
    if (!result && !(result = real_fallocate(fd, offset, length)) && file && file->traced)
        record(ALLOCATE, file->inode, (uint64_t)(offset + length), NULL, 0, NULL);
    pthread_mutex_unlock(&lock);
    return result;
}

int posix_fallocate(int fd, off_t offset, off_t length) { return allocated(fd, offset, length); }
int posix_fallocate64(int fd, off_t offset, off_t length) { return allocated(fd, offset, length); }

int rename(const char *from, const char *to)
{
    const char *old = below(from), *new = below(to);
    if (!old || !new) return real_rename(from, to);
    pthread_mutex_lock(&lock);
    int fails = verdict(RENAME), result = -1;
    if (fails) {
        errno = fails;
    } else if (!(result = real_rename(from, to))) {
        record(RENAME, 0, 0, old, strlen(old), new);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path)
{
    const char *name = below(path);
    if (!name) return real_unlink(path);
    pthread_mutex_lock(&lock);
    int fails = verdict(UNLINK), result = -1;
    struct stat before;
    int had_space = !stat(path, &before) && before.st_size >= 1 << 20;
    if (fails) {
        errno = fails;
    } else if (!(result = real_unlink(path))) {
        if (!is_shm(name)) record(UNLINK, 0, 0, name, strlen(name), NULL);
        if (had_space) space_made();
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode)
{
    const char *name = below(path);
    if (!name) return real_mkdir(path, mode);
    pthread_mutex_lock(&lock);
    struct stat made;
    int fails = verdict(MKDIR), result = -1;
    if (fails) {
        errno = fails;
    } else if (!(result = real_mkdir(path, mode)) && !stat(path, &made)) {
        record(MKDIR, made.st_ino, 0, name, strlen(name), NULL);
    }
    pthread_mutex_unlock(&lock);
    return result;
}
