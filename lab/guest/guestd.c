/*
 * The lab guest's one process after boot: it runs as PID 1 and holds everything a test asks of a
 * guest, so that a boot is short and a test can tell what the guest saw.
 *
 *   TCP 7     echo
 *   UDP 7777  sink of numbered datagrams (first 4 bytes: sequence number, big-endian)
 *   TCP 7778  one line of JSON about the sink and the guest; "reset\n" and "stats\n" are understood
 *   TCP 7779  verifies the memory filled by dm.dirty=PERCENT: "ok PAGES\n" or "bad BAD/PAGES\n"
 *
 * It joins the multicast groups of dm.join=GROUP[,GROUP], announces its addresses by mDNS as
 * NAME.local with dm.mdns=NAME, and powers the guest off on the ACPI power button.
 *
 * `guestd login USER TTY` and `guestd logout TTY` note that someone is logged in, or no longer, where
 * the guest agent looks: in utmp(5).
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/input.h>
#include <net/if.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>
#include <utmpx.h>

#define SEQ_MAX (1u << 26) /* the bitmap is bss: pages never touched cost nothing */
#define PAGE 4096u
#define BATCH 64

static void die(const char *what) {
	fprintf(stderr, "guestd: %s: %s\n", what, strerror(errno));
	exit(1);
}

/* One dual-stack socket serves IPv4 and IPv6. */
static int listen_on(int type, uint16_t port) {
	struct sockaddr_in6 at = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	int one = 1, s = socket(AF_INET6, type | SOCK_CLOEXEC, 0);
	if (s < 0) die("socket");
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
	if (bind(s, (struct sockaddr *)&at, sizeof at)) die("bind");
	if (type == SOCK_STREAM && listen(s, 128)) die("listen");
	return s;
}

static void spawn(void *(*run)(void *), void *arg) {
	pthread_t t;
	pthread_attr_t a;
	pthread_attr_init(&a);
	pthread_attr_setstacksize(&a, 128 * 1024);
	pthread_attr_setdetachstate(&a, PTHREAD_CREATE_DETACHED);
	if (pthread_create(&t, &a, run, arg)) die("pthread_create");
}

/* ---- a TCP service: one thread accepts, one thread serves each connection ---- */

struct service {
	int sock;
	void *(*serve)(void *);
};

__attribute__((noreturn)) static void *accept_loop(void *arg) {
	struct service *s = arg;
	for (;;) {
		int c = accept4(s->sock, NULL, NULL, SOCK_CLOEXEC);
		if (c >= 0) spawn(s->serve, (void *)(intptr_t)c);
	}
}

static void tcp_service(uint16_t port, void *(*serve)(void *)) {
	struct service *s = malloc(sizeof *s);
	s->sock = listen_on(SOCK_STREAM, port);
	s->serve = serve;
	spawn(accept_loop, s);
}

static void *echo(void *arg) {
	int c = (int)(intptr_t)arg;
	char buf[16384];
	ssize_t n;
	while ((n = read(c, buf, sizeof buf)) > 0)
		for (ssize_t at = 0, w; at < n; at += w)
			if ((w = write(c, buf + at, (size_t)(n - at))) <= 0) goto out;
out:
	close(c);
	return NULL;
}

/* ---- the sink of numbered datagrams ---- */

static struct {
	uint64_t datagrams, distinct, duplicates, reordered, malformed, highest;
} sink;
static uint8_t seen[SEQ_MAX / 8];
static pthread_mutex_t sink_lock = PTHREAD_MUTEX_INITIALIZER;

static void sink_take(const uint8_t *b, unsigned len) {
	uint32_t n;
	sink.datagrams++;
	if (len < 4 || (memcpy(&n, b, 4), n = ntohl(n)) >= SEQ_MAX) {
		sink.malformed++;
		return;
	}
	if (seen[n / 8] & (1 << n % 8)) {
		sink.duplicates++;
		return;
	}
	seen[n / 8] |= (uint8_t)(1 << n % 8);
	if (sink.distinct && n < sink.highest) sink.reordered++;
	if (n > sink.highest) sink.highest = n;
	sink.distinct++;
}

__attribute__((noreturn)) static void *sink_loop(void *arg) {
	static uint8_t buf[BATCH][2048];
	struct mmsghdr m[BATCH];
	struct iovec v[BATCH];
	int s = (int)(intptr_t)arg;
	memset(m, 0, sizeof m);
	for (int i = 0; i < BATCH; i++) {
		v[i] = (struct iovec){buf[i], sizeof buf[i]};
		m[i].msg_hdr.msg_iov = &v[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	for (;;) {
		int n = recvmmsg(s, m, BATCH, MSG_WAITFORONE, NULL);
		pthread_mutex_lock(&sink_lock);
		for (int i = 0; i < n; i++) sink_take(buf[i], m[i].msg_len);
		pthread_mutex_unlock(&sink_lock);
	}
}

static void sink_reset(void) {
	pthread_mutex_lock(&sink_lock);
	memset(seen, 0, sink.highest / 8 + 1);
	memset(&sink, 0, sizeof sink);
	pthread_mutex_unlock(&sink_lock);
}

/* Datagrams the guest's own kernel dropped for want of socket buffer: not the network's loss. */
static uint64_t rcvbuf_errors(void) {
	char line[512];
	uint64_t total = 0, v;
	FILE *f = fopen("/proc/net/snmp6", "r");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "Udp6RcvbufErrors %lu", &v) == 1) total += v;
	if (f) fclose(f);
	f = fopen("/proc/net/snmp", "r");
	while (f && fgets(line, sizeof line, f))
		if (sscanf(line, "Udp: %*u %*u %*u %*u %lu", &v) == 1) total += v;
	if (f) fclose(f);
	return total;
}

static uint64_t millis(clockid_t clock) {
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static void boot_id(char id[40]) {
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "r");
	if (!f || fscanf(f, "%39s", id) != 1) strcpy(id, "unknown");
	if (f) fclose(f);
}

static void print_stats(int c) {
	char id[40];
	boot_id(id);
	pthread_mutex_lock(&sink_lock);
	typeof(sink) s = sink;
	pthread_mutex_unlock(&sink_lock);
	uint64_t span = s.distinct ? s.highest + 1 : 0;
	dprintf(c,
		"{\"datagrams\":%lu,\"received\":%lu,\"lost\":%lu,\"duplicates\":%lu,\"reordered\":%lu,"
		"\"malformed\":%lu,\"highest\":%lu,\"rcvbuf_errors\":%lu,"
		"\"uptime_ms\":%lu,\"unix_ms\":%lu,\"boot_id\":\"%s\"}\n",
		s.datagrams, s.distinct, span - s.distinct, s.duplicates, s.reordered, s.malformed, s.highest,
		rcvbuf_errors(), millis(CLOCK_MONOTONIC), millis(CLOCK_REALTIME), id);
}

static void *stats(void *arg) {
	int c = (int)(intptr_t)arg;
	char line[64];
	FILE *in = fdopen(c, "r");
	if (!in) return NULL;
	print_stats(c);
	while (fgets(line, sizeof line, in)) {
		if (!strcmp(line, "reset\n")) sink_reset();
		print_stats(c);
	}
	fclose(in);
	return NULL;
}

/* ---- memory that must come back as it was ---- */

static uint64_t *dirty;
static size_t dirty_pages;

/* Every page from its number alone, so that a verification needs no second copy. */
static inline uint64_t next(uint64_t *x) {
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

static void fill_page(size_t page) {
	uint64_t x = (page + 1) * 0x9E3779B97F4A7C15ull, *p = dirty + page * (PAGE / 8);
	for (unsigned i = 0; i < PAGE / 8; i++) p[i] = next(&x);
}

static int page_is_good(size_t page) {
	uint64_t x = (page + 1) * 0x9E3779B97F4A7C15ull, *p = dirty + page * (PAGE / 8);
	for (unsigned i = 0; i < PAGE / 8; i++)
		if (p[i] != next(&x)) return 0;
	return 1;
}

static void fill_memory(unsigned percent) {
	struct sysinfo si;
	sysinfo(&si);
	dirty_pages = si.totalram / 100 * percent / PAGE;
	dirty = mmap(NULL, dirty_pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (dirty == MAP_FAILED || mlock(dirty, dirty_pages * PAGE)) die("dirty memory");
	for (size_t i = 0; i < dirty_pages; i++) fill_page(i);
}

static void *verify(void *arg) {
	int c = (int)(intptr_t)arg;
	size_t bad = 0;
	for (size_t i = 0; i < dirty_pages; i++) bad += !page_is_good(i);
	if (bad)
		dprintf(c, "bad %zu/%zu\n", bad, dirty_pages);
	else
		dprintf(c, "ok %zu\n", dirty_pages);
	close(c);
	return NULL;
}

/* ---- multicast groups and names ---- */

/* A socket that has joined a group on eth0, bound to a port: it stays a member while it is open. */
static int join(const char *group, uint16_t port) {
	struct group_req r = {.gr_interface = if_nametoindex("eth0")};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&r.gr_group;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&r.gr_group, any = {.sin6_port = htons(port)};
	int is_v4 = inet_pton(AF_INET, group, &v4->sin_addr) == 1;
	if (!is_v4 && inet_pton(AF_INET6, group, &v6->sin6_addr) != 1) die(group);
	r.gr_group.ss_family = any.sin6_family = is_v4 ? AF_INET : AF_INET6; /* in_any and in6_any are zeros */
	int s = socket(r.gr_group.ss_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (s < 0) die("socket");
	if (bind(s, (struct sockaddr *)&any, is_v4 ? sizeof *v4 : sizeof any)) die("bind");
	if (setsockopt(s, is_v4 ? IPPROTO_IP : IPPROTO_IPV6, MCAST_JOIN_GROUP, &r, sizeof r)) die(group);
	return s;
}

static uint8_t *put16(uint8_t *to, uint16_t n) {
	*to++ = (uint8_t)(n >> 8);
	*to++ = (uint8_t)n;
	return to;
}

static uint8_t *put(uint8_t *to, const void *from, size_t len) {
	return (uint8_t *)memcpy(to, from, len) + len;
}

/* A unique record of an address, for 120 s (RFC 6762 10, 10.2). */
static uint8_t *put_record(uint8_t *to, const char *name, uint16_t type, const void *address, uint16_t len) {
	*to++ = (uint8_t)strlen(name);
	to = put(to, name, strlen(name));
	to = put(to, "\5local", 7);
	to = put16(put16(to, type), 0x8001);
	to = put16(put16(to, 0), 120);
	return put(put16(to, len), address, len);
}

/* Announces NAME.local with eth0's addresses, twice (RFC 6762 8.3). It answers no questions. */
static void *announce(void *arg) {
	const char *name = arg;
	uint8_t message[512] = {0, 0, 0x84}, *end = message + 12;
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(5353)};
	struct ip_mreqn on = {.imr_ifindex = (int)if_nametoindex("eth0")};
	struct ifaddrs *all, *a;
	int s = join("224.0.0.251", 5353), hops = 255;
	setsockopt(s, IPPROTO_IP, IP_MULTICAST_TTL, &hops, sizeof hops);
	setsockopt(s, IPPROTO_IP, IP_MULTICAST_IF, &on, sizeof on); /* there may be no route to groups */
	to.sin_addr.s_addr = htonl(0xe00000fb);
	if (getifaddrs(&all)) die("getifaddrs");
	for (a = all; a && end - message < 400; a = a->ifa_next) {
		if (!a->ifa_addr || strcmp(a->ifa_name, "eth0")) continue;
		if (a->ifa_addr->sa_family == AF_INET)
			end = put_record(end, name, 1, &((struct sockaddr_in *)a->ifa_addr)->sin_addr, 4);
		else if (a->ifa_addr->sa_family == AF_INET6)
			end = put_record(end, name, 28, &((struct sockaddr_in6 *)a->ifa_addr)->sin6_addr, 16);
		else
			continue;
		message[7]++;
	}
	freeifaddrs(all);
	for (int i = 0; i < 2; i++, sleep(1))
		sendto(s, message, (size_t)(end - message), 0, (struct sockaddr *)&to, sizeof to);
	return NULL;
}

static void join_all(char *groups) {
	for (char *g = strtok(groups, ","); g; g = strtok(NULL, ",")) join(g, 0);
}

/* ---- the power button ---- */

static void *button(void *arg) {
	int fd = (int)(intptr_t)arg;
	struct input_event e;
	while (read(fd, &e, sizeof e) == sizeof e)
		if (e.type == EV_KEY && e.code == KEY_POWER && e.value == 1) {
			dprintf(1, "POWEROFF\n");
			sync();
			reboot(RB_POWER_OFF);
		}
	close(fd);
	return NULL;
}

static void watch_buttons(void) {
	char path[32];
	for (int i = 0; i < 8; i++) {
		snprintf(path, sizeof path, "/dev/input/event%d", i);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0) spawn(button, (void *)(intptr_t)fd);
	}
}

/* ---- who is logged in ---- */

static int note_user(short type, const char *user, const char *tty) {
	struct utmpx u = {.ut_type = type, .ut_pid = getpid()};
	struct timespec now;
	size_t n = strlen(tty);
	clock_gettime(CLOCK_REALTIME, &now);
	u.ut_tv.tv_sec = (int32_t)now.tv_sec;
	/* utmp(5): fields that are full need no terminating null. */
	strncpy(u.ut_user, user, sizeof u.ut_user);
	strncpy(u.ut_line, tty, sizeof u.ut_line);
	strncpy(u.ut_id, n > sizeof u.ut_id ? tty + n - sizeof u.ut_id : tty, sizeof u.ut_id);
	setutxent();
	if (!pututxline(&u)) die("utmp");
	endutxent();
	return 0;
}

int main(int argc, char **argv) {
	if (argc == 4 && !strcmp(argv[1], "login")) return note_user(USER_PROCESS, argv[2], argv[3]);
	if (argc == 3 && !strcmp(argv[1], "logout")) return note_user(DEAD_PROCESS, "", argv[2]);
	unsigned percent = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
	int size = 64 << 20, udp;
	signal(SIGPIPE, SIG_IGN);
	signal(SIGCHLD, SIG_IGN); /* PID 1 inherits orphans: let the kernel reap them */
	if (percent) fill_memory(percent > 90 ? 90 : percent);
	udp = listen_on(SOCK_DGRAM, 7777);
	setsockopt(udp, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof size);
	spawn(sink_loop, (void *)(intptr_t)udp);
	tcp_service(7, echo);
	tcp_service(7778, stats);
	tcp_service(7779, verify);
	watch_buttons();
	if (argc > 2) join_all(argv[2]);
	if (argc > 3 && *argv[3] && strlen(argv[3]) < 64) spawn(announce, argv[3]);
	dprintf(1, "READY\n");
	for (;;) pause();
}
