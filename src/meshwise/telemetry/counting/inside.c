/* Preloaded into a process that runs under `valgrind --tool=callgrind`: a thread that begins and ends windows.
 *
 * valgrind is asked from inside, by client requests, so nobody has to stop the process from outside (as vgdb does
 * by ptrace). The thread sleeps in accept or recv; when the other side is gone it waits for the next one. What it
 * does itself is not collected. In a process that is not under valgrind nothing happens.
 *
 * MESHWISE_COUNTER: the directory in which it listens, at `control`; or `cpu`: print which CPU the program sees, dump
 * what the known arithmetic counts, end; or `arithmetic`, without valgrind too: print how many ns of CPU it takes, end.
 * One packet of one byte is a command and is answered with the same byte when it is done:
 *   z  from now on everything counts, and system calls are traced into valgrind's log
 *   d  write what was counted since, and trace no more
 *   i  instructions are counted from now on, which makes the program much slower, at first above all
 *   o  they are not, until `i`
 *   k  count known work: KNOWN turns of a loop of this thread, and one system call
 *
 * MESHWISE_TURN: a file that processes share which take turns, so that what one finds when it wakes does not depend on
 * who is faster. A process has its turn from when one of its threads finds something to do (epoll_wait returns) until
 * all its threads wait again; it looks at what there is to do only when it has its turn. A sidecar that is called so
 * finds all that its caller has written, and not a part of it. The turn is a flock, which ends with who holds it.
 *
 * The instructions by which valgrind is asked, and the numbers of the requests, are those of valgrind.h and
 * callgrind.h (their own sections, for amd64 and arm64, may be used anywhere: BSD-style licence).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

#define TOOL(a, b, n) ((unsigned long)(a) << 24 | (unsigned long)(b) << 16 | (n)) /* VG_USERREQ_TOOL_BASE */
#define RUNNING_ON_VALGRIND 0x1001UL
#define CLO_CHANGE 0x1203UL
#define DUMP_STATS TOOL('C', 'T', 0)
#define ZERO_STATS TOOL('C', 'T', 1)
#define TOGGLE_COLLECT TOOL('C', 'T', 2)
#define START_INSTRUMENTATION TOOL('C', 'T', 4)
#define STOP_INSTRUMENTATION TOOL('C', 'T', 5)

#define MARK 0x6d77 /* `which` of a getpriority that only this thread makes: its line in the log is known by it */
#define KNOWN 100000
#define LIMBS 32 /* of 64 bits: as wide as an RSA key of 2048 bits */
#define PRODUCTS 1000
#define ROUNDS 20 /* the fastest is taken: whatever else runs only adds */

static int turn = -1; /* -1: nobody takes turns */
static int active;    /* our threads that have something to do */
static char guard;    /* of `active`: who changes it */
static __thread char is_active __attribute__((tls_model("initial-exec")));

static long raw(long number, long a, long b, long c, long d, long e)
{
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
    long answer;

    __asm__ volatile("syscall"
                     : "=a"(answer)
                     : "0"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return answer;
#else
    long answer = syscall(number, a, b, c, d, e);
    return answer < 0 ? -errno : answer;
#endif
}

static void with_guard(int more)
{
    struct timespec moment = {0, 100000};
    int before;

    while (__atomic_exchange_n(&guard, 1, __ATOMIC_ACQUIRE))
        raw(SYS_nanosleep, (long)&moment, 0, 0, 0, 0);
    before = active;
    active += more;
    if (more > 0 ? before == 0 : active == 0)
        while (raw(SYS_flock, turn, more > 0 ? LOCK_EX : LOCK_UN, 0, 0, 0) == -EINTR)
            ;
    __atomic_store_n(&guard, 0, __ATOMIC_RELEASE);
    is_active = more > 0;
}

static long look(int epoll, struct epoll_event *events, int most, int timeout)
{
#ifdef SYS_epoll_wait
    return raw(SYS_epoll_wait, epoll, (long)events, most, timeout, 0);
#else
    long found = syscall(SYS_epoll_pwait, epoll, events, most, timeout, NULL, 8);
    return found < 0 ? -errno : found;
#endif
}

/* Instead of libc's. ppoll waits without taking what there is; system calls of our own have names that no proxy uses. */
int epoll_wait(int epoll, struct epoll_event *events, int most, int timeout)
{
    struct pollfd waiting = {epoll, POLLIN, 0};
    struct timespec limit = {timeout / 1000, timeout % 1000 * 1000000L};
    long found = 0;

    if (turn < 0 || timeout == 0) {
        found = look(epoll, events, most, timeout);
    } else {
        if (is_active)
            with_guard(-1);
        found = raw(SYS_ppoll, (long)&waiting, 1, timeout < 0 ? 0 : (long)&limit, 0, 0);
        with_guard(1);
        if (found >= 0)
            found = look(epoll, events, most, 0);
    }
    if (found >= 0)
        return found;
    errno = -found;
    return -1;
}

static unsigned long ask(unsigned long request, const void *argument)
{
    volatile unsigned long words[6] = {request, (unsigned long)argument, 0, 0, 0, 0};
    unsigned long answer = 0;
#if defined(__x86_64__)
    __asm__ volatile("rolq $3, %%rdi; rolq $13, %%rdi; rolq $61, %%rdi; rolq $51, %%rdi; xchgq %%rbx, %%rbx"
                     : "=d"(answer)
                     : "a"(&words[0]), "0"(answer)
                     : "cc", "memory");
#elif defined(__aarch64__)
    __asm__ volatile("mov x3, %1; mov x4, %2; ror x12, x12, #3; ror x12, x12, #13; ror x12, x12, #51;"
                     "ror x12, x12, #61; orr x10, x10, x10; mov %0, x3"
                     : "=r"(answer)
                     : "r"(answer), "r"(&words[0])
                     : "cc", "memory", "x3", "x4");
#else
#error "valgrind is asked on amd64 and arm64 only"
#endif
    return answer;
}

static void trace(int on)
{
    ask(CLO_CHANGE, on ? "--trace-syscalls=yes" : "--trace-syscalls=no");
    if (on)
        syscall(SYS_getpriority, MARK, 0);
}

static void instrument(int on)
{
    static int is_on; /* only this thread asks */

    if (on == is_on)
        return;
    is_on = on;
    ask(on ? START_INSTRUMENTATION : STOP_INSTRUMENTATION, 0);
    if (on)
        ask(TOGGLE_COLLECT, 0); /* off for this thread: the start has set it for all */
}

static void known_work(void)
{
    ask(TOGGLE_COLLECT, 0);
    for (volatile int turn = 0; turn < KNOWN; turn++)
        ;
    ask(TOGGLE_COLLECT, 0);
}

/* Dense arithmetic, of which a check of a signature consists: products of wide numbers, limb by limb. */
static void arithmetic(void)
{
    static unsigned long one[LIMBS], other[LIMBS], made[2 * LIMBS];

    for (int limb = 0; limb < LIMBS; limb++)
        one[limb] = other[LIMBS - 1 - limb] = 0x9e3779b97f4a7c15UL * (limb + 1);
    for (int product = 0; product < PRODUCTS; product++) {
        memset(made, 0, sizeof made);
        for (int row = 0; row < LIMBS; row++) {
            unsigned long carry = 0;
            for (int column = 0; column < LIMBS; column++) {
                unsigned __int128 sum = (unsigned __int128)one[row] * other[column] + made[row + column] + carry;
                made[row + column] = (unsigned long)sum;
                carry = (unsigned long)(sum >> 64);
            }
            made[row + LIMBS] = carry;
        }
        memcpy(one, made + LIMBS / 2, sizeof one);
    }
}

static long cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

static void time_arithmetic(void)
{
    long best = 0;

    for (int round = 0; round < ROUNDS; round++) {
        long begun = cpu_ns(), took;
        arithmetic();
        took = cpu_ns() - begun;
        if (!round || took < best)
            best = took;
    }
    printf("arithmetic %ld\n", best);
    fflush(stdout);
    _exit(0);
}

static void serve(int connection)
{
    char command;

    while (recv(connection, &command, 1, 0) == 1) {
        switch (command) {
        case 'z':
            trace(1);
            ask(ZERO_STATS, 0);
            break;
        case 'd':
            ask(DUMP_STATS, 0);
            trace(0);
            break;
        case 'i':
            instrument(1);
            break;
        case 'o':
            instrument(0);
            break;
        case 'k':
            known_work();
            break;
        default:
            return;
        }
        if (send(connection, &command, 1, MSG_NOSIGNAL) != 1)
            return;
    }
}

static void *listen_for_ever(void *listener)
{
    int connection;

    while ((connection = accept4((int)(long)listener, 0, 0, SOCK_CLOEXEC)) >= 0) {
        serve(connection);
        close(connection);
    }
    return 0;
}

static int listener_in(const char *directory)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    int place = open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC); /* sun_path holds 107 bytes, a path more */

    snprintf(address.sun_path, sizeof address.sun_path, "/proc/self/fd/%d/control", place);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1)) {
        perror("meshwise: counting: cannot listen");
        return -1;
    }
    close(place);
    return listener;
}

static void print_cpu(void)
{
    char name[49] = "the machine's own";
#ifdef __x86_64__
    for (unsigned part = 0; part < 3; part++) {
        unsigned *words = (unsigned *)(name + 16 * part);
        __get_cpuid(0x80000002 + part, words, words + 1, words + 2, words + 3);
    }
#endif
    printf("cpu %s\n", name);
    fflush(stdout);
    ask(ZERO_STATS, 0);
    arithmetic();
    ask(DUMP_STATS, 0);
    _exit(0);
}

__attribute__((constructor)) static void start(void)
{
    const char *wanted = getenv("MESHWISE_COUNTER"), *shared = getenv("MESHWISE_TURN");
    sigset_t every, former;
    pthread_t thread;
    int listener;

    if (wanted && !strcmp(wanted, "arithmetic"))
        time_arithmetic();
    if (!wanted || !ask(RUNNING_ON_VALGRIND, 0))
        return;
    if (!strcmp(wanted, "cpu"))
        print_cpu();
    if ((listener = listener_in(wanted)) < 0)
        return;
    if (shared && (turn = open(shared, O_RDWR | O_CLOEXEC)) < 0)
        perror("meshwise: counting: cannot take turns");
    sigfillset(&every); /* signals are for the program's own threads */
    pthread_sigmask(SIG_SETMASK, &every, &former);
    if (pthread_create(&thread, 0, listen_for_ever, (void *)(long)listener))
        perror("meshwise: counting: no thread");
    else
        pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &former, 0);
}
