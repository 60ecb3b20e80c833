// The machine's limit: preallocated files, and threads that write memory into them in fixed chunks.
// MODE is `plain`, or `direct` for writes past the page cache, from huge pages that lie as the file
// does, so that nothing has to be copied; the bytes behind the last whole block go through the cache.
//
//   raw_write THREADS MODE DURABLE FRESH_BYTES FOLDER FILE [FILE ...]
//
// Writes the contents of every FILE under its own name into FOLDER, by at most THREADS threads, and
// prints one JSON line. The clock covers making the files, every write, and if DURABLE is 1 the
// fsync of each file and of the folder; reading the contents into memory happens before it, and
// then touching and freeing FRESH_BYTES, which a virtual machine's host would take back in seconds.
//
// Of `plain`, one thread for each file: the kernel lets in only one buffered writer at a time.

#include "raw_chunks.h"

#include <libgen.h>
#include <sys/stat.h>

enum { WRITE_BYTES = 4 << 20, DIRECT_WRITE_BYTES = 2 << 20 };

static int direct, durable, directory;

static void load(struct job *job, char **paths) {
    for (size_t i = 0; i < job->part_count; i++) {
        struct part *part = &job->parts[i];
        struct stat facts;
        part->path = paths[i];
        if (stat(part->path, &facts) != 0) fail("stat", part->path);
        part->bytes = (uint64_t)facts.st_size;
        part->huge = direct;
    }
    allocate(job);
    read_parts(job, 1);
    for (size_t i = 0; i < job->part_count; i++) {
        job->parts[i].path = basename((char *)job->parts[i].path);
    }
    atomic_store(&job->next_chunk, 0);
}

static void touch_and_free(size_t bytes) {
    if (bytes == 0) return;
    char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) fail("mmap", "");
    (void)madvise(memory, bytes, MADV_HUGEPAGE);
    for (size_t at = 0; at < bytes; at += 4096) ((volatile char *)memory)[at] = 1;
    munmap(memory, bytes);
}

static void write_exactly(const struct part *part, int descriptor, uint64_t begin, uint64_t end) {
    while (begin < end) {
        ssize_t count = pwrite(descriptor, part->memory + begin, end - begin, (off_t)begin);
        if (count < 0 && errno == EINTR) continue;
        if (count <= 0) fail("pwrite", part->path);
        begin += (uint64_t)count;
    }
}

// An empty file of its final size, where the file system can.
static int make(const struct part *part) {
    int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | (direct ? O_DIRECT : 0);
    int descriptor = openat(directory, part->path, flags, 0644);
    if (descriptor < 0) fail("openat", part->path);
    (void)fallocate(descriptor, 0, 0, (off_t)part->bytes);
    return descriptor;
}

static void finish(const struct part *part, int descriptor) {
    if (durable && fsync(descriptor) != 0) fail("fsync", part->path);
    if (close(descriptor) != 0) fail("close", part->path);
}

static void write_file(const struct part *part) {
    int descriptor = make(part);
    for (uint64_t begin = 0; begin < part->bytes; begin += WRITE_BYTES) {
        uint64_t end = begin + WRITE_BYTES;
        write_exactly(part, descriptor, begin, end < part->bytes ? end : part->bytes);
    }
    finish(part, descriptor);
}

static void write_chunk(const struct part *part, uint64_t begin, uint64_t end) {
    uint64_t blocks_end = end / BLOCK_BYTES * BLOCK_BYTES;
    write_exactly(part, part->descriptor, begin, blocks_end);
    if (blocks_end == end) return;
    int buffered = openat(directory, part->path, O_WRONLY | O_CLOEXEC);
    if (buffered < 0) fail("openat", part->path);
    write_exactly(part, buffered, blocks_end, end);
    if (close(buffered) != 0) fail("close", part->path);
}

static void *write_files(void *argument) {
    struct job *job = argument;
    for (size_t i; (i = atomic_fetch_add(&job->next_chunk, 1)) < job->part_count;) {
        write_file(&job->parts[i]);
    }
    return NULL;
}

static void *finish_files(void *argument) {
    struct job *job = argument;
    for (size_t i; (i = atomic_fetch_add(&job->next_chunk, 1)) < job->part_count;) {
        finish(&job->parts[i], job->parts[i].descriptor);
    }
    return NULL;
}

static void write_directly(struct job *job, int threads) {
    for (size_t i = 0; i < job->part_count; i++) job->parts[i].descriptor = make(&job->parts[i]);
    job->work = write_chunk;
    job->chunk_bytes = DIRECT_WRITE_BYTES;
    run_threads(job, threads, take_chunks);
    atomic_store(&job->next_chunk, 0);
    run_threads(job, threads, finish_files);
}

int main(int count, char **arguments) {
    int threads = count > 1 ? atoi(arguments[1]) : 0;
    direct = count > 2 && strcmp(arguments[2], "direct") == 0;
    int known = direct || (count > 2 && strcmp(arguments[2], "plain") == 0);
    if (count < 7 || !known || threads < 1 || threads > MAX_THREADS) {
        fprintf(stderr, "usage: raw_write THREADS plain|direct DURABLE FRESH_BYTES FOLDER FILE [FILE ...]\n");
        return 2;
    }
    durable = atoi(arguments[3]);
    const char *folder = arguments[5];
    struct job job = {.part_count = (size_t)count - 6};
    job.parts = calloc(job.part_count, sizeof *job.parts);
    if (job.parts == NULL) fail("calloc", "");
    load(&job, arguments + 6);
    uint64_t bytes = 0;
    for (size_t i = 0; i < job.part_count; i++) bytes += job.parts[i].bytes;
    if (!direct && (size_t)threads > job.part_count) threads = (int)job.part_count;

    touch_and_free(strtoull(arguments[4], NULL, 10));
    sync();
    double start = now_seconds();
    directory = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0) fail("open", folder);
    if (direct) write_directly(&job, threads);
    else run_threads(&job, threads, write_files);
    if (durable && fsync(directory) != 0) fail("fsync", folder);
    double seconds = now_seconds() - start;

    printf("{\"seconds\": %.9f, \"bytes\": %" PRIu64 ", \"threads\": %d, \"chunk_bytes\": %d, "
           "\"peak_resident_bytes\": %" PRIu64 "}\n",
           seconds, bytes, threads, (int)(direct ? DIRECT_WRITE_BYTES : WRITE_BYTES),
           peak_resident_bytes());
    return 0;
}
