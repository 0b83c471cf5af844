// Follows the TCP connections of running guests by what they send: tc ingress of their taps.
//
// A tap has a region of the table: SETS sets of WAYS connections each, the set of a connection
// being a hash of its addresses and ports. So a guest that opens a million connections pushes out
// its own and nobody else's; a kernel's LRU hash would have to be one per tap, and evicts early where
// it has less than some hundred entries for each processor.
//
// A set is changed by who makes its sequence number odd, on other processors or in user space;
// who finds it odd leaves it alone, for the next segment says as much. Who reads it finds the same
// even number before and after.
//
// The program lets every frame pass. The layout of the structures and the names of the maps are
// known to flows/table.rs and flows/ebpf.rs.
#include "frame.h"
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>

#define REGIONS 32
#define SETS 32
#define WAYS 15

// What a place in a set has, in the order in which it is given away for another.
enum state {
	FREE,
	CLOSING, // the guest sent FIN: what it still sends does not open it again
	ESTABLISHED,
};

#define HAS_TSVAL 1

struct flow {
	__u64 local[2];  // in network order; IPv4 addresses as ::ffff:a.b.c.d
	__u64 remote[2];
	__be16 local_port;
	__be16 remote_port;
	__u32 snd_nxt;
	__u32 rcv_nxt;
	__u32 tsval;
	__u16 window;
	__u8 state;
	__u8 flags;
	__u32 reserved;
	__u64 heard; // CLOCK_MONOTONIC, in ns
};

struct set {
	__u64 sequence;
	__u64 reserved[7];
	struct flow ways[WAYS];
};

struct owner {
	__u64 mac; // the guest's address as a number, first octet highest
	__u64 region;
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, REGIONS);
	__type(key, __u32); // index of the tap
	__type(value, struct owner);
} owner_of SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, REGIONS * SETS);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct set);
} sets SEC(".maps");

#define FIN 0x01
#define SYN 0x02
#define RST 0x04
#define ACK 0x10

#define MAX_EXTENSIONS 6
#define MAX_OPTIONS 20

// What a segment says: of the connection as it is after it, and the flags.
struct segment {
	struct flow flow;
	__u8 flags;
};

struct option {
	__u8 kind;
	__u8 length;
};

// From the octet `at` to the octet `end`.
static __always_inline void read_options(struct __sk_buff *skb, __u32 at, __u32 end, struct segment *segment)
{
	struct option option;
	__be32 tsval;
	int i;

	for (i = 0; i < MAX_OPTIONS; i++) {
		// The last octet can only be the end of the list, or nothing.
		if (at + sizeof(option) > end || bpf_skb_load_bytes(skb, at, &option, sizeof(option)))
			return;
		if (option.kind == 0)
			return;
		if (option.kind == 1) {
			at++;
			continue;
		}
		if (option.length < 2 || at + option.length > end)
			return;
		if (option.kind == 8 && option.length == 10) {
			if (bpf_skb_load_bytes(skb, at + 2, &tsval, sizeof(tsval)))
				return;
			segment->flow.tsval = bpf_ntohl(tsval);
			segment->flow.flags = HAS_TSVAL;
			return;
		}
		at += option.length;
	}
}

// The segment from the octet `at` on, of `length` octets.
static __always_inline int read_tcp(struct __sk_buff *skb, __u32 at, __s32 length, struct segment *segment)
{
	struct {
		__be16 source, destination;
		__be32 sequence, acknowledgement;
		__u8 offset, flags;
		__be16 window;
	} tcp;
	__s32 header;

	if (bpf_skb_load_bytes(skb, at, &tcp, sizeof(tcp)))
		return -1;
	header = (tcp.offset >> 4) * 4;
	if (header < (__s32)sizeof(struct tcphdr) || length < header || at + header > skb->len)
		return -1;
	segment->flags = tcp.flags;
	segment->flow.local_port = tcp.source;
	segment->flow.remote_port = tcp.destination;
	segment->flow.snd_nxt = bpf_ntohl(tcp.sequence) + (length - header) + !!(tcp.flags & (SYN | FIN));
	segment->flow.rcv_nxt = bpf_ntohl(tcp.acknowledgement);
	segment->flow.window = bpf_ntohs(tcp.window);
	read_options(skb, at + sizeof(struct tcphdr), at + header, segment);
	return 0;
}

// The second half of ::ffff:a.b.c.d in network order.
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define MAPPED(address) ((__u64)(address) << 32 | bpf_htonl(0xffff))
#else
#define MAPPED(address) (0xffffULL << 32 | (address))
#endif

static __always_inline int read_ipv4(struct __sk_buff *skb, struct segment *segment)
{
	struct iphdr ip;
	__s32 header, length;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)))
		return -1;
	// Fragments do not say how long the segment is.
	if (ip.version != 4 || ip.protocol != IPPROTO_TCP || ip.frag_off & bpf_htons(0x3fff))
		return -1;
	header = ip.ihl * 4;
	length = bpf_ntohs(ip.tot_len);
	if (header < (__s32)sizeof(ip))
		return -1;
	// A segment that is too long for the field says zero.
	if (length == 0)
		length = skb->len - ETH_HLEN;
	segment->flow.local[0] = segment->flow.remote[0] = 0;
	segment->flow.local[1] = MAPPED(ip.saddr);
	segment->flow.remote[1] = MAPPED(ip.daddr);
	return read_tcp(skb, ETH_HLEN + header, length - header, segment);
}

// Behind the extension headers (RFC 8200): the offset of the TCP header, or 0.
static __always_inline __u32 skip_extensions(struct __sk_buff *skb, __u8 next)
{
	__u32 at = ETH_HLEN + sizeof(struct ipv6hdr);
	__u8 extension[4];
	int i;

	for (i = 0; i < MAX_EXTENSIONS; i++) {
		if (next == IPPROTO_TCP)
			return at;
		if (bpf_skb_load_bytes(skb, at, extension, sizeof(extension)))
			return 0;
		switch (next) {
		case IPPROTO_HOPOPTS:
		case IPPROTO_ROUTING:
		case IPPROTO_DSTOPTS:
			at += 8 * (extension[1] + 1);
			break;
		case IPPROTO_FRAGMENT:
			if (extension[2] || extension[3] & 0xf9)
				return 0;
			at += 8;
			break;
		case IPPROTO_AH:
			at += 4 * (extension[1] + 2);
			break;
		default:
			return 0;
		}
		next = extension[0];
	}
	return 0;
}

static __always_inline int read_ipv6(struct __sk_buff *skb, struct segment *segment)
{
	struct {
		__be32 class;
		__be16 length;
		__u8 next, hops;
		__u64 source[2], destination[2];
	} ip;
	__s32 end;
	__u32 at;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &ip, sizeof(ip)) || (bpf_ntohl(ip.class) >> 28) != 6)
		return -1;
	at = skip_extensions(skb, ip.next);
	if (!at)
		return -1;
	end = ip.length ? ETH_HLEN + sizeof(ip) + bpf_ntohs(ip.length) : skb->len;
	segment->flow.local[0] = ip.source[0];
	segment->flow.local[1] = ip.source[1];
	segment->flow.remote[0] = ip.destination[0];
	segment->flow.remote[1] = ip.destination[1];
	return read_tcp(skb, at, end - (__s32)at, segment);
}

static __always_inline __u32 set_of(const struct flow *flow)
{
	__u64 both = flow->local[0] ^ flow->local[1] ^ flow->remote[0] ^ flow->remote[1];
	__u32 hash = (__u32)both ^ (__u32)(both >> 32);

	hash ^= (__u32)flow->local_port << 16 | flow->remote_port;
	return hash * 0x9e3779b1u >> 27;
}

static __always_inline int is_same(const struct flow *a, const struct flow *b)
{
	return a->local_port == b->local_port && a->remote_port == b->remote_port &&
	       a->remote[1] == b->remote[1] && a->remote[0] == b->remote[0] &&
	       a->local[1] == b->local[1] && a->local[0] == b->local[0];
}

static __always_inline int at_or_after(__u32 later, __u32 origin)
{
	return (__s32)(later - origin) >= 0;
}

// Field by field: clang 14 makes a call to memcpy of the whole.
static __always_inline void enter(struct flow *flow, const struct flow *now, __u8 state)
{
	flow->local[0] = now->local[0];
	flow->local[1] = now->local[1];
	flow->remote[0] = now->remote[0];
	flow->remote[1] = now->remote[1];
	flow->local_port = now->local_port;
	flow->remote_port = now->remote_port;
	flow->snd_nxt = now->snd_nxt;
	flow->rcv_nxt = now->rcv_nxt;
	flow->tsval = now->tsval;
	flow->window = now->window;
	flow->state = state;
	flow->flags = now->flags;
	flow->heard = now->heard;
}

// Segments that are sent again or overtaken change only what they are newer in.
static __always_inline void update(struct flow *flow, const struct flow *now)
{
	if (at_or_after(now->snd_nxt, flow->snd_nxt))
		flow->snd_nxt = now->snd_nxt;
	if (at_or_after(now->rcv_nxt, flow->rcv_nxt)) {
		flow->rcv_nxt = now->rcv_nxt;
		flow->window = now->window;
	}
	// RFC 7323: in use by both or by none (section 3.2), and never less than before (4.1).
	if (now->flags & flow->flags & HAS_TSVAL && at_or_after(now->tsval, flow->tsval))
		flow->tsval = now->tsval;
	flow->heard = now->heard;
	flow->state = ESTABLISHED;
}

// `flow`: the place of the connection, if `known`, or else the one to be given away for it.
static __always_inline void follow_one(struct flow *flow, int known, const struct segment *segment)
{
	__u8 flags = segment->flags, state = flow->state;

	if (flags & (RST | SYN)) {
		if (known)
			flow->state = FREE;
	} else if (!(flags & ACK)) {
		return;
	} else if (flags & FIN) {
		// What strangers make a guest close does not push out what it has.
		if (known || state <= CLOSING)
			enter(flow, &segment->flow, CLOSING);
	} else if (!known) {
		enter(flow, &segment->flow, ESTABLISHED);
	} else if (state != CLOSING) {
		update(flow, &segment->flow);
	}
}

static __always_inline void follow_in(struct set *set, const struct segment *segment)
{
	__u64 worth, least = ~0ULL, sequence = ONCE(set->sequence);
	__u32 i, place = 0, known = 0;
	struct flow *flow;

	if (sequence & 1 || __sync_val_compare_and_swap(&set->sequence, sequence, sequence + 1) != sequence)
		return;
	for (i = 0; i < WAYS; i++) {
		flow = &set->ways[i];
		if (flow->state != FREE && is_same(flow, &segment->flow)) {
			known = 1;
			place = i;
			break;
		}
		// The least worth is the one heard longest ago of the lowest state.
		worth = flow->state == FREE ? 0 : (__u64)flow->state << 62 | flow->heard >> 2;
		if (worth < least) {
			least = worth;
			place = i;
		}
	}
	if (place < WAYS)
		follow_one(&set->ways[place], known, segment);
	__sync_fetch_and_add(&set->sequence, 1);
}

SEC("classifier") int follow(struct __sk_buff *skb)
{
	struct segment segment = {};
	__u32 index = skb->ifindex;
	struct owner *owner = bpf_map_lookup_elem(&owner_of, &index);
	struct set *set;
	__u64 source;

	if (!owner || load_address(skb, ETH_ALEN, &source) || source != owner->mac)
		return TC_ACT_UNSPEC;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (read_ipv4(skb, &segment))
			return TC_ACT_UNSPEC;
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		if (read_ipv6(skb, &segment))
			return TC_ACT_UNSPEC;
	} else {
		return TC_ACT_UNSPEC;
	}
	segment.flow.heard = bpf_ktime_get_coarse_ns();
	index = owner->region * SETS + set_of(&segment.flow);
	set = bpf_map_lookup_elem(&sets, &index);
	if (set)
		follow_in(set, &segment);
	return TC_ACT_UNSPEC;
}

char _license[] SEC("license") = "GPL";
