// The machine's limit: N threads of pread into memory that is touched already, each through 32 MiB
// from front to back before it takes the next.
//
//   raw_limit THREADS FILE OFFSET BYTES [FILE OFFSET BYTES ...]
//
// Prints one JSON line. The clock covers opening the files, starting the threads and every read;
// touching the memory happens before it, the checksum (sum of 64-bit words) after it.

#include "raw_chunks.h"

static uint64_t checksum(const struct job *job) {
    uint64_t sum = 0;
    for (size_t i = 0; i < job->part_count; i++) {
        for (uint64_t at = 0; at < job->parts[i].bytes; at += sizeof(uint64_t)) {
            uint64_t word;  // Never past the end: BYTES is a whole number of words.
            memcpy(&word, job->parts[i].memory + at, sizeof word);
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
    run_threads(&job, threads, read_chunks);
    double seconds = now_seconds() - start;

    printf("{\"seconds\": %.9f, \"bytes\": %" PRIu64 ", \"threads\": %d, \"chunk_bytes\": %d, "
           "\"checksum\": %" PRIu64 ", \"peak_resident_bytes\": %" PRIu64 "}\n",
           seconds, bytes, threads, (int)CHUNK_BYTES, checksum(&job),
           peak_resident_bytes());
    return 0;
}
