/* Files as memory, brought in and let go piece by piece. A file that shrinks while it is mapped, or
 * whose disk fails, raises SIGBUS where it is touched. Inside a mapping zeros take the place of the
 * page that is lost, the thread that met it is told by amalgam_lost(), and the program goes on to
 * say so; elsewhere the signal does what it did before. */
#pragma once
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAPPINGS 4096
static struct { _Atomic uintptr_t start, stop; } mappings[MAPPINGS];
static struct sigaction before;
static _Thread_local volatile int lost;

static uintptr_t page_of(uintptr_t at) { return at & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1); }

static void on_bus_error(int number, siginfo_t *info, void *context) {
    uintptr_t at = page_of((uintptr_t)info->si_addr);
    (void)number, (void)context;
    for (int i = 0; i < MAPPINGS; i++) {
        if (at < mappings[i].start || at >= mappings[i].stop) continue;
        int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        if (mmap((void *)at, page, PROT_READ, flags, -1, 0) == MAP_FAILED) break;
        lost = 1;
        return;
    }
    sigaction(SIGBUS, &before, NULL); /* not ours: the access is tried again and meets the old one */
}

/* Whoever else asked for the signal meanwhile gets what is not ours. */
static int watch(void) {
    struct sigaction now, own;
    if (sigaction(SIGBUS, NULL, &now) != 0) return -1;
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_bus_error) return 0;
    memset(&own, 0, sizeof own);
    own.sa_sigaction = on_bus_error;
    own.sa_flags = SA_SIGINFO;
    before = now;
    return sigaction(SIGBUS, &own, NULL);
}

/* Maps the first `size` bytes of a file. Returns NULL where that cannot be done. */
void *amalgam_map(int file, int64_t size) {
    if (watch() != 0) return NULL;
    void *start = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, file, 0);
    if (start == MAP_FAILED) return NULL;
    for (int i = 0; i < MAPPINGS; i++) {
        uintptr_t none = 0;
        if (!__atomic_compare_exchange_n((uintptr_t *)&mappings[i].start, &none, (uintptr_t)start,
                                         0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            continue;
        mappings[i].stop = (uintptr_t)start + (uintptr_t)size;
        return start;
    }
    munmap(start, (size_t)size);
    return NULL;
}

void amalgam_unmap(void *start, int64_t size) {
    for (int i = 0; i < MAPPINGS; i++)
        if (mappings[i].start == (uintptr_t)start) {
            mappings[i].stop = 0;
            mappings[i].start = 0;
            break;
        }
    munmap(start, (size_t)size);
}

/* Brings `size` mapped bytes in at once, where the system can; reading brings them in otherwise. */
void amalgam_bring(void *at, int64_t size) {
    uintptr_t start = page_of((uintptr_t)at);
    lost = lost; /* the thread's flag exists before a signal needs it */
#ifdef MADV_POPULATE_READ
    madvise((void *)start, (size_t)((uintptr_t)at + (uintptr_t)size - start), MADV_POPULATE_READ);
#else
    (void)start, (void)size;
#endif
}

/* Lets them go: they no longer count as this process' memory. */
void amalgam_drop(void *at, int64_t size) {
    uintptr_t start = page_of((uintptr_t)at);
    madvise((void *)start, (size_t)((uintptr_t)at + (uintptr_t)size - start), MADV_DONTNEED);
}

/* Whether this thread has met bytes that are gone since it last asked. */
int amalgam_lost(void) {
    int met = lost;
    lost = 0;
    return met;
}

/* Copies `count` blocks of `size` bytes of a file, the first at `offset`, each `step` bytes after
 * the one before. Returns how many could be read whole. */
int64_t amalgam_gather(int file, int64_t offset, int64_t step, int64_t size, int64_t count,
                       char *out) {
    for (int64_t k = 0; k < count; k++)
        for (int64_t done = 0; done < size;) {
            ssize_t read = pread(file, out + k * size + done, (size_t)(size - done),
                                 offset + k * step + done);
            if (read < 0 && errno == EINTR) continue;
            if (read <= 0) return k;
            done += read;
        }
    return count;
}
