/* Loaded into a daemon before libc (LD_PRELOAD): makes system calls fail, and shifts the clock.
 * What is to be done stands in a file that both sides map, see preload.py. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct orders {
    int64_t clock;      /* seconds by which the wall clock is ahead */
    int32_t sync_error; /* errno of fdatasync and fsync, 0: they work */
    int32_t write_error; /* errno of pwrite */
    int32_t done[3];    /* how often each of them was obeyed: clock, sync, write */
};

static volatile struct orders *orders;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("HARPCALLER_TEST_ORDERS");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *mapped = mmap(0, sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED)
        orders = mapped;
    close(file);
}

#define REAL(name)                                                                       \
    ({                                                                                   \
        static __typeof__(&name) found;                                                  \
        if (!found)                                                                      \
            found = (__typeof__(&name))dlsym(RTLD_NEXT, #name);                          \
        found;                                                                           \
    })

#define REFUSE(which, number)                                                            \
    if (orders && orders->which) {                                                       \
        __sync_fetch_and_add(&orders->done[number], 1);                                  \
        errno = orders->which;                                                           \
        return -1;                                                                       \
    }

int fdatasync(int file)
{
    REFUSE(sync_error, 1)
    return REAL(fdatasync)(file);
}

int fsync(int file)
{
    REFUSE(sync_error, 1)
    return REAL(fsync)(file);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t at)
{
    REFUSE(write_error, 2)
    return REAL(pwrite)(file, data, size, at);
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t at)
{
    REFUSE(write_error, 2)
    return REAL(pwrite64)(file, data, size, at);
}

static int64_t shift(void)
{
    if (!orders || !orders->clock)
        return 0;
    __sync_fetch_and_add(&orders->done[0], 1);
    return orders->clock;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int outcome = REAL(clock_gettime)(clock, now);
    if (outcome == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += shift();
    return outcome;
}

int gettimeofday(struct timeval *now, void *zone)
{
    int outcome = REAL(gettimeofday)(now, zone);
    if (outcome == 0)
        now->tv_sec += shift();
    return outcome;
}

time_t time(time_t *now)
{
    time_t found = REAL(time)(0) + shift();
    if (now)
        *now = found;
    return found;
}
