// The machine's limit: N threads of pread into memory that is touched already, each through 32 MiB
// from front to back before it takes the next. MODE is `plain`; `direct` for reads past the page cache,
// into huge pages: of whole blocks of the file, so that nothing has to be copied; `widen` for BF16 that
// becomes F32 on its way; or `fresh` for huge pages that the kernel has to make first.
//
//   raw_limit THREADS MODE FILE OFFSET BYTES [FILE OFFSET BYTES ...]
//
// Prints one JSON line. The clock covers opening the files, starting the threads and every read;
// touching memory that is not `fresh` happens before it, the checksum (sum of 64-bit words) after it.

#include "raw_chunks.h"

static uint64_t checksum(const char *data, uint64_t bytes, int widened) {
    uint64_t sum = 0;
    for (uint64_t at = 0; at < bytes; at += sizeof(uint64_t)) {
        uint64_t word;  // Never past the end: BYTES is a whole number of words.
        if (widened) {
            for (int i = 0; i < 4; i++) memcpy((char *)&word + 2 * i, data + 2 * at + 4 * i + 2, 2);
        } else {
            memcpy(&word, data + at, sizeof word);
        }
        sum += word;
    }
    return sum;
}

// Widens a part to whole blocks; returns how many bytes then lie before its data.
static uint64_t widen(struct part *part) {
    uint64_t before = part->offset % BLOCK_BYTES;
    part->offset -= before;
    part->bytes = (before + part->bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
    part->direct = 1;
    return before;
}

int main(int count, char **arguments) {
    int threads = count > 1 ? atoi(arguments[1]) : 0;
    if (count < 6 || (count - 3) % 3 != 0 || threads < 1 || threads > MAX_THREADS) {
        fprintf(stderr, "usage: raw_limit THREADS plain|direct|widen|fresh FILE OFFSET BYTES [FILE OFFSET BYTES ...]\n");
        return 2;
    }
    int direct = strcmp(arguments[2], "direct") == 0, widened = strcmp(arguments[2], "widen") == 0;
    int fresh = strcmp(arguments[2], "fresh") == 0;
    struct job job = {.part_count = (size_t)(count - 3) / 3};
    job.parts = calloc(job.part_count, sizeof *job.parts);
    uint64_t *before = calloc(job.part_count, sizeof *before);
    uint64_t *data_bytes = calloc(job.part_count, sizeof *data_bytes);
    if (job.parts == NULL || before == NULL || data_bytes == NULL) fail("calloc", "");
    uint64_t bytes = 0;
    for (size_t i = 0; i < job.part_count; i++) {
        char **triple = arguments + 3 + 3 * i;
        job.parts[i].path = triple[0];
        job.parts[i].offset = strtoull(triple[1], NULL, 10);
        job.parts[i].bytes = strtoull(triple[2], NULL, 10);
        if (job.parts[i].bytes % sizeof(uint64_t) != 0) {
            fprintf(stderr, "raw_limit: BYTES must be whole 64-bit words\n");
            return 2;
        }
        data_bytes[i] = job.parts[i].bytes;
        job.parts[i].widened = widened;
        job.parts[i].fresh = fresh;
        job.parts[i].huge = direct || fresh;
        bytes += data_bytes[i];
        if (direct) before[i] = widen(&job.parts[i]);
    }
    allocate(&job);

    double start = now_seconds();
    read_parts(&job, threads);
    double seconds = now_seconds() - start;

    uint64_t sum = 0;
    for (size_t i = 0; i < job.part_count; i++) {
        sum += checksum(job.parts[i].memory + before[i], data_bytes[i], widened);
    }
    printf("{\"seconds\": %.9f, \"bytes\": %" PRIu64 ", \"threads\": %d, \"chunk_bytes\": %d, "
           "\"checksum\": %" PRIu64 ", \"peak_resident_bytes\": %" PRIu64 "}\n",
           seconds, bytes, threads, (int)CHUNK_BYTES, sum, peak_resident_bytes());
    return 0;
}
