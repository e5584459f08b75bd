/* H: what the kernel alone costs. A bare epoll loop that answers the end of every request head with the same bytes: no parsing, no
 * store. `bare PORT FILE`: FILE holds the answer. Requests may come in pieces and in pipelines; bodies must not hold an empty line.
 * What a connection does not take is sent when it does; meanwhile nothing is read from it.
 * `bare PORT FILE LONGEST`: the same, and the file LONGEST gets, on SIGTERM, the longest time that serving one connection once took, in
 * microseconds of processor time: some ten of them are its own, the rest is what the machine adds. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { DESCRIPTORS = 65536, INPUT = 64 * 1024, ANSWERS_BYTES = 256 * 1024 };

/* How many bytes of the empty line each connection has seen. */
static unsigned char matched[DESCRIPTORS];
/* How many bytes of answers each has yet to be sent. */
static size_t unsent[DESCRIPTORS];
static char input[INPUT], *answers;
static size_t answer_len, answers_len;

static volatile sig_atomic_t is_told_to_stop;

static void stop(int signal) {
    (void)signal;
    is_told_to_stop = 1;
}

static double processor_us(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return now.tv_sec * 1e6 + now.tv_nsec / 1e3;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

/* Sends what is unsent; 0 when all is sent. */
static int send_some(int fd) {
    while (unsent[fd] > 0) {
        /* The first byte that is unsent is one of an answer: where, follows from how many are left. */
        size_t at = (answer_len - unsent[fd] % answer_len) % answer_len;
        size_t len = answers_len - at < unsent[fd] ? answers_len - at : unsent[fd];
        ssize_t sent = send(fd, answers + at, len, MSG_NOSIGNAL);
        if (sent < 0)
            return errno == EINTR ? 1 : errno == EAGAIN ? 1 : -1;
        unsent[fd] -= (size_t)sent;
        if ((size_t)sent < len)
            return 1;
    }
    return 0;
}

static void serve(int fd) {
    for (;;) {
        int outcome = send_some(fd);
        if (outcome < 0)
            close(fd);
        if (outcome != 0)
            return;
        ssize_t len = recv(fd, input, INPUT, 0);
        if (len == 0 || (len < 0 && errno != EAGAIN && errno != EINTR)) {
            close(fd);
            return;
        }
        if (len < 0)
            return;
        unsigned char at = matched[fd];
        for (ssize_t i = 0; i < len; i++) {
            char c = input[i];
            at = c == (at & 1 ? '\n' : '\r') ? at + 1 : c == '\r';
            if (at == 4) {
                unsent[fd] += answer_len;
                at = 0;
            }
        }
        matched[fd] = at;
        if (len < INPUT) {
            if (send_some(fd) < 0)
                close(fd);
            return;
        }
    }
}

int main(int argc, char **argv) {
    if (argc != 3 && argc != 4) {
        fprintf(stderr, "bare PORT FILE [LONGEST]\n");
        return 2;
    }
    double longest_us = 0;
    if (argc == 4)
        signal(SIGTERM, stop);
    FILE *file = fopen(argv[2], "rb");
    if (!file || fseek(file, 0, SEEK_END))
        fail(argv[2]);
    answer_len = (size_t)ftell(file);
    rewind(file);
    size_t copies = answer_len < ANSWERS_BYTES ? ANSWERS_BYTES / answer_len : 1;
    answers_len = copies * answer_len;
    answers = malloc(answers_len);
    if (!answers || fread(answers, 1, answer_len, file) != answer_len)
        fail(argv[2]);
    fclose(file);
    for (size_t i = 1; i < copies; i++)
        memcpy(answers + i * answer_len, answers, answer_len);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1, epoll = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024))
        fail("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    while (!is_told_to_stop) {
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd != listener) {
                double begun_us = argc == 4 ? processor_us() : 0;
                serve(events[i].data.fd);
                double us = argc == 4 ? processor_us() - begun_us : 0;
                longest_us = us > longest_us ? us : longest_us;
                continue;
            }
            int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (fd < 0 || fd >= DESCRIPTORS)
                continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            matched[fd] = 0;
            unsent[fd] = 0;
            event.events = EPOLLIN | EPOLLOUT | EPOLLET;
            event.data.fd = fd;
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        }
    }
    file = fopen(argv[3], "w");
    if (!file || fprintf(file, "%.0f\n", longest_us) < 0 || fclose(file))
        fail(argv[3]);
    return 0;
}
