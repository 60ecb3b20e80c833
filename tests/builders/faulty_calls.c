// System calls that fail on demand, to be loaded before the C library's own (LD_PRELOAD).
//
// FAULTY_FILE: calls fail on files whose path contains this; without it, none does.
// FAULTY_EVERY: every so manieth call fails. FAULTY_ERRNO: with this error. Calls are counted anew
// with another error: how many were made before one was seen to fail depends on the threads.
// FAULTY_MAPS: only pages of maps fail; once some have, so do all reads of files.
// FAULTY_QUEUES: only calls to a queue of io_uring fail.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long calls;
static atomic_int last_code, map_failed;

static int fails_now(void) {
    const char *every = getenv("FAULTY_EVERY"), *code = getenv("FAULTY_ERRNO");
    if (!every || !code) return 0;
    if (atomic_exchange(&last_code, atoi(code)) != atoi(code)) {
        atomic_store(&calls, 0);
        atomic_store(&map_failed, 0);
    }
    if ((atomic_fetch_add(&calls, 1) + 1) % atol(every) != 0) return 0;
    errno = atoi(code);
    return 1;
}

static int fails(int file) {
    const char *wanted = getenv("FAULTY_FILE");
    if (!wanted || !*wanted || getenv("FAULTY_QUEUES")) return 0;
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    if (!strstr(path, wanted)) return 0;
    if (!getenv("FAULTY_MAPS")) return fails_now();
    errno = EIO;
    return atomic_load(&map_failed);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define VECTORED(name)                                                              \
    ssize_t name(int file, const struct iovec *buffers, int count, off_t offset) { \
        return fails(file) ? -1 : NEXT(name)(file, buffers, count, offset);        \
    }
VECTORED(preadv)
VECTORED(pwritev)

ssize_t pread64(int file, void *buffer, size_t length, off64_t offset) {
    return fails(file) ? -1 : NEXT(pread64)(file, buffer, length, offset);
}

int fallocate(int file, int mode, off_t offset, off_t length) {
    return fails(file) ? -1 : NEXT(fallocate)(file, mode, offset, length);
}

int fsync(int file) { return fails(file) ? -1 : NEXT(fsync)(file); }

// Pages of a map that the disk does not give: the kernel says EFAULT, whatever the disk says.
int madvise(void *start, size_t length, int advice) {
    const char *wanted = getenv("FAULTY_MAPS");
    if (advice == 22 /* MADV_POPULATE_READ */ && wanted && fails_now()) {
        atomic_store(&map_failed, 1);
        errno = EFAULT;
        return -1;
    }
    return NEXT(madvise)(start, length, advice);
}

long syscall(long number, ...) {
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
    long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    // Only those that wait: what was handed in before is then under way.
    int waits = number == SYS_io_uring_enter && c > 0;
    if (waits && getenv("FAULTY_QUEUES") && fails_now()) return -1;
    return NEXT(syscall)(number, a, b, c, d, e, f);
}
