// What the raw programs share: threads that read files chunk by chunk, memory, a clock.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { CHUNK_BYTES = 32 << 20, READ_BYTES = 1 << 20, MAX_THREADS = 256 };
enum { BLOCK_BYTES = 4096, DIRECT_READ_BYTES = 2 << 20, HUGE_PAGE_BYTES = 2 << 20 };

struct part {
    const char *path;
    uint64_t offset, bytes;
    char *memory;
    int direct;  // Past the page cache; offset, bytes and memory are then whole blocks.
    int widened;  // BF16 that becomes F32, twice as many bytes.
    int fresh;    // Into memory that nobody has touched.
    int huge;     // In huge pages: of small ones a direct transfer asks the disk for each.
    int descriptor;  // Of who writes.
};

struct job {
    struct part *parts;
    size_t part_count;
    uint64_t chunk_bytes;
    void (*work)(const struct part *part, uint64_t begin, uint64_t end);
    atomic_size_t next_chunk;
};

static void fail(const char *what, const char *path) {
    fprintf(stderr, "%s: %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static double now_seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

// BF16 to F32, written past the cache: the destination need not be read first.
static void widen_elements(const char *from, char *to, size_t bytes) {
    size_t at = 0;
#ifdef __SSE2__
    const __m128i zero = _mm_setzero_si128();
    for (; at + 16 <= bytes; at += 16) {
        __m128i halves = _mm_loadu_si128((const __m128i *)(from + at));
        _mm_stream_si128((__m128i *)(to + 2 * at), _mm_unpacklo_epi16(zero, halves));
        _mm_stream_si128((__m128i *)(to + 2 * at + 16), _mm_unpackhi_epi16(zero, halves));
    }
    _mm_sfence();
#endif
    for (; at < bytes; at += 2) {
        memset(to + 2 * at, 0, 2);
        memcpy(to + 2 * at + 2, from + at, 2);
    }
}

// A chunk by way of memory that stays in the cache.
static void read_widened(const struct part *part, int descriptor, uint64_t begin, uint64_t end) {
    static _Thread_local char bounce[READ_BYTES];
    while (begin < end) {
        size_t wanted = end - begin < READ_BYTES ? end - begin : READ_BYTES, have = 0;
        while (have < wanted) {
            ssize_t count = pread(descriptor, bounce + have, wanted - have,
                                  (off_t)(part->offset + begin + have));
            if (count < 0 && errno == EINTR) continue;
            if (count <= 0) fail("pread", part->path);
            have += (size_t)count;
        }
        widen_elements(bounce, part->memory + 2 * begin, wanted);
        begin += wanted;
    }
}

// From front to back through a descriptor of its own, so that the kernel reads ahead.
static void read_chunk(const struct part *part, uint64_t begin, uint64_t end) {
    int descriptor = open(part->path, O_RDONLY | O_CLOEXEC | (part->direct ? O_DIRECT : 0));
    if (descriptor < 0) fail("open", part->path);
    if (part->widened) {
        read_widened(part, descriptor, begin, end);
        begin = end;
    }
    while (begin < end) {
        size_t most = part->direct ? DIRECT_READ_BYTES : READ_BYTES;
        size_t wanted = end - begin < most ? end - begin : most;
        ssize_t count = pread(descriptor, part->memory + begin, wanted,
                              (off_t)(part->offset + begin));
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) fail("pread", part->path);
        begin += (uint64_t)count;
        if (part->direct && (size_t)count < wanted) break;  // The file ends within its last block.
    }
    close(descriptor);
}

// Chunk numbers run through all the parts; false when `chunk` lies behind the last one.
static int take_chunk(const struct job *job, size_t chunk) {
    for (size_t i = 0; i < job->part_count; i++) {
        const struct part *part = &job->parts[i];
        size_t chunks = (part->bytes + job->chunk_bytes - 1) / job->chunk_bytes;
        if (chunk < chunks) {
            uint64_t begin = chunk * job->chunk_bytes;
            uint64_t end = begin + job->chunk_bytes;
            job->work(part, begin, end < part->bytes ? end : part->bytes);
            return 1;
        }
        chunk -= chunks;
    }
    return 0;
}

static void *take_chunks(void *argument) {
    struct job *job = argument;
    while (take_chunk(job, atomic_fetch_add(&job->next_chunk, 1))) {
    }
    return NULL;
}

static void run_threads(struct job *job, int threads, void *(*work)(void *)) {
    pthread_t handles[MAX_THREADS];
    for (int i = 0; i < threads; i++) {
        if ((errno = pthread_create(&handles[i], NULL, work, job)) != 0) fail("pthread_create", "");
    }
    for (int i = 0; i < threads; i++) pthread_join(handles[i], NULL);
}

static void read_parts(struct job *job, int threads) {
    job->work = read_chunk;
    job->chunk_bytes = CHUNK_BYTES;
    run_threads(job, threads, take_chunks);
}

static void allocate(struct job *job) {
    for (size_t i = 0; i < job->part_count; i++) {
        struct part *part = &job->parts[i];
        uint64_t bytes = part->widened ? 2 * part->bytes : part->bytes;
        uint64_t whole = bytes + HUGE_PAGE_BYTES;  // Room to begin at a huge page.
        part->memory = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (part->memory == MAP_FAILED) fail("mmap", part->path);
        part->memory += -(uintptr_t)part->memory % HUGE_PAGE_BYTES;
        if (part->huge) (void)madvise(part->memory, bytes, MADV_HUGEPAGE);
        if (!part->fresh) memset(part->memory, 0x5A, bytes);
    }
}

static uint64_t peak_resident_bytes(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_maxrss * 1024;
}
