/* Does known work on demand: reads a number of units (8 bytes) from the FIFO argv[1], does them, writes the number to
 * the FIFO argv[2]. A unit is TURNS turns of a loop; every hundredth makes a system call as well.
 * argv[3]: `threaded`: in a thread of its own, that has ended when they are done; `pages`: a unit is one page that is
 * written for the first time; or both. */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TURNS 100

static int by_pages;

static void touch_page(void)
{
    char *page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    *page = 1;
    munmap(page, 4096);
}

static void *units(void *argument)
{
    int64_t wanted = *(int64_t *)argument;

    for (int64_t unit = 0; unit < wanted; unit++) {
        if (by_pages) {
            touch_page();
            continue;
        }
        for (volatile int turn = 0; turn < TURNS; turn++)
            ;
        if (unit % 100 == 0)
            syscall(SYS_getppid);
    }
    return 0;
}

int main(int count, char **words)
{
    int in = open(words[1], O_RDWR), out = open(words[2], O_RDWR);
    int threaded = count > 3 && strstr(words[3], "threaded");
    int64_t wanted;
    pthread_t thread;

    by_pages = count > 3 && strstr(words[3], "pages");
    while (read(in, &wanted, sizeof wanted) == sizeof wanted) {
        if (threaded) {
            pthread_create(&thread, 0, units, &wanted);
            pthread_join(thread, 0);
        } else
            units(&wanted);
        write(out, &wanted, sizeof wanted);
    }
    return 0;
}
