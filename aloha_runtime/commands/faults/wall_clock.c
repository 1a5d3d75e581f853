/* Preloaded into a process by `aloha bench faults`: its wall clock is off by the seconds in a shared file. The
   monotonic clocks stay what they are, as when somebody sets the time of the machine. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long *offset_s(void) {
    static volatile long *mapped;
    static long none;
    if (!mapped) {
        const char *path = getenv("FAULTS_WALL_CLOCK");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        void *found = file < 0 ? MAP_FAILED : mmap(0, sizeof(long), PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0) close(file);
        mapped = found == MAP_FAILED ? &none : found;
    }
    return mapped;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failure = syscall(SYS_clock_gettime, clock, now);
    if (!failure && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) now->tv_sec += *offset_s();
    return failure;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int failure = syscall(SYS_gettimeofday, now, zone);
    if (!failure && now) now->tv_sec += *offset_s();
    return failure;
}

time_t time(time_t *now) {
    struct timespec found;
    clock_gettime(CLOCK_REALTIME, &found);
    if (now) *now = found.tv_sec;
    return found.tv_sec;
}
