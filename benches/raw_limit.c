// The machine's limit: N threads of pread in fixed chunks into memory that is touched already.
//
//   raw_limit THREADS FILE OFFSET BYTES [FILE OFFSET BYTES ...]
//
// Prints one JSON line. The clock covers opening the files, starting the threads and every read;
// touching the memory happens before it, the checksum (sum of 64-bit words) after it.

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

enum { CHUNK_BYTES = 4 << 20, MAX_THREADS = 256 };

struct part {
    const char *path;
    uint64_t offset, bytes;
    int descriptor;
    char *destination;
};

struct job {
    struct part *parts;
    size_t part_count;
    atomic_size_t next_chunk;
};

static void fail(const char *what, const char *path) {
    fprintf(stderr, "raw_limit: %s: %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static double now_seconds(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

static void read_exactly(const struct part *part, uint64_t begin, uint64_t end) {
    while (begin < end) {
        ssize_t count = pread(part->descriptor, part->destination + begin, end - begin,
                              (off_t)(part->offset + begin));
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) fail("pread", part->path);
        begin += (uint64_t)count;
    }
}

// Chunk numbers run through all the parts; false when `chunk` lies behind the last one.
static int read_chunk(const struct job *job, size_t chunk) {
    for (size_t i = 0; i < job->part_count; i++) {
        const struct part *part = &job->parts[i];
        size_t chunks = (part->bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
        if (chunk < chunks) {
            uint64_t begin = (uint64_t)chunk * CHUNK_BYTES;
            uint64_t end = begin + CHUNK_BYTES;
            read_exactly(part, begin, end < part->bytes ? end : part->bytes);
            return 1;
        }
        chunk -= chunks;
    }
    return 0;
}

static void *work(void *argument) {
    struct job *job = argument;
    while (read_chunk(job, atomic_fetch_add(&job->next_chunk, 1))) {
    }
    return NULL;
}

static void open_parts(struct job *job) {
    for (size_t i = 0; i < job->part_count; i++) {
        struct part *part = &job->parts[i];
        part->descriptor = open(part->path, O_RDONLY | O_CLOEXEC);
        (void)posix_fadvise(part->descriptor, 0, 0, POSIX_FADV_RANDOM); // Reads are planned.
        if (part->descriptor < 0) fail("open", part->path);
    }
}

static void run_threads(struct job *job, int threads) {
    pthread_t handles[MAX_THREADS];
    for (int i = 0; i < threads; i++) {
        if ((errno = pthread_create(&handles[i], NULL, work, job)) != 0) fail("pthread_create", "");
    }
    for (int i = 0; i < threads; i++) pthread_join(handles[i], NULL);
}

static void allocate_touched(struct job *job) {
    for (size_t i = 0; i < job->part_count; i++) {
        struct part *part = &job->parts[i];
        part->destination = mmap(NULL, part->bytes, PROT_READ | PROT_WRITE,
                                 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (part->destination == MAP_FAILED) fail("mmap", part->path);
        memset(part->destination, 0x5A, part->bytes);
    }
}

static uint64_t checksum(const struct job *job) {
    uint64_t sum = 0;
    for (size_t i = 0; i < job->part_count; i++) {
        for (uint64_t at = 0; at < job->parts[i].bytes; at += sizeof(uint64_t)) {
            uint64_t word;  // Never past the end: BYTES is a whole number of words.
            memcpy(&word, job->parts[i].destination + at, sizeof word);
            sum += word;
        }
    }
    return sum;
}

int main(int count, char **arguments) {
    int threads = count > 1 ? atoi(arguments[1]) : 0;
    if (count < 5 || (count - 2) % 3 != 0 || threads < 1 || threads > MAX_THREADS) {
        fprintf(stderr, "usage: raw_limit THREADS FILE OFFSET BYTES [FILE OFFSET BYTES ...]\n");
        return 2;
    }
    struct job job = {.part_count = (size_t)(count - 2) / 3};
    job.parts = calloc(job.part_count, sizeof *job.parts);
    if (job.parts == NULL) fail("calloc", "");
    uint64_t bytes = 0;
    for (size_t i = 0; i < job.part_count; i++) {
        char **triple = arguments + 2 + 3 * i;
        job.parts[i].path = triple[0];
        job.parts[i].offset = strtoull(triple[1], NULL, 10);
        job.parts[i].bytes = strtoull(triple[2], NULL, 10);
        if (job.parts[i].bytes % sizeof(uint64_t) != 0) {
            fprintf(stderr, "raw_limit: BYTES must be whole 64-bit words\n");
            return 2;
        }
        bytes += job.parts[i].bytes;
    }
    allocate_touched(&job);

    double start = now_seconds();
    open_parts(&job);
    run_threads(&job, threads);
    double seconds = now_seconds() - start;

    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"seconds\": %.9f, \"bytes\": %" PRIu64 ", \"threads\": %d, \"chunk_bytes\": %d, "
           "\"checksum\": %" PRIu64 ", \"peak_resident_bytes\": %" PRIu64 "}\n",
           seconds, bytes, threads, (int)CHUNK_BYTES, checksum(&job),
           (uint64_t)usage.ru_maxrss * 1024);
    return 0;
}
