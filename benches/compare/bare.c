/* H: what the kernel alone costs. A bare epoll loop that answers the end of every request head with the same bytes: no parsing, no
 * store. `bare PORT FILE`: FILE holds the answer. Requests may come in pieces and in pipelines; bodies must not hold an empty line. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { DESCRIPTORS = 65536, INPUT = 64 * 1024, ANSWERS = 1024 };

/* How many bytes of the empty line each connection has seen. */
static unsigned char matched[DESCRIPTORS];
static char input[INPUT], *answers;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void serve(int fd, size_t answer_len) {
    for (;;) {
        ssize_t len = recv(fd, input, INPUT, 0);
        if (len == 0 || (len < 0 && errno != EAGAIN && errno != EINTR)) {
            close(fd);
            return;
        }
        if (len < 0)
            return;
        size_t count = 0;
        unsigned char at = matched[fd];
        for (ssize_t i = 0; i < len; i++) {
            char c = input[i];
            at = c == (at & 1 ? '\n' : '\r') ? at + 1 : c == '\r';
            if (at == 4) {
                count++;
                at = 0;
            }
        }
        matched[fd] = at;
        while (count > 0) {
            size_t some = count < ANSWERS ? count : ANSWERS;
            size_t left = some * answer_len;
            const char *from = answers;
            while (left > 0) {
                ssize_t sent = send(fd, from, left, MSG_NOSIGNAL);
                if (sent < 0 && errno != EAGAIN && errno != EINTR) {
                    close(fd);
                    return;
                }
                if (sent > 0) {
                    from += sent;
                    left -= (size_t)sent;
                }
            }
            count -= some;
        }
        if (len < INPUT)
            return;
    }
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fprintf(stderr, "bare PORT FILE\n");
        return 2;
    }
    static char answer[1 << 16];
    FILE *file = fopen(argv[2], "rb");
    if (!file)
        fail(argv[2]);
    size_t answer_len = fread(answer, 1, sizeof answer, file);
    fclose(file);
    answers = malloc(answer_len * ANSWERS);
    for (int i = 0; i < ANSWERS; i++)
        memcpy(answers + i * answer_len, answer, answer_len);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1, epoll = epoll_create1(0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(argv[1])), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024))
        fail("listen");
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener}, events[256];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, 256, -1);
        for (int i = 0; i < count; i++) {
            if (events[i].data.fd != listener) {
                serve(events[i].data.fd, answer_len);
                continue;
            }
            int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
            if (fd < 0 || fd >= DESCRIPTORS)
                continue;
            setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
            matched[fd] = 0;
            event.events = EPOLLIN | EPOLLET;
            event.data.fd = fd;
            epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
        }
    }
}
