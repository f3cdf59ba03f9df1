// SPDX-License-Identifier: GPL-2.0
// Steering in front of the network stack: each SA's packets to the SA's own CPU, each flow of the LAN to one CPU.
//
// flowfast_wan (on a WAN device): ESP, and ESP in UDP, of a SPI that is in `sas` goes to that SA's CPU by cpumap.
// flowfast_lan (on a LAN device): a flow's packets go to one CPU of `spread`, so that its outbound SA is that CPU's.
// Whatever is malformed, fragmented (WAN), has IPv4 options (WAN) or is unknown passes untouched: the stack is the judge
// of it, as it was before. Here belongs only what must happen for each packet; flowfast (plan/steering) decides, and
// writes the tables through memory that it shares with the program: each a variable, which costs a packet no lookup at
// all; a hash map would cost it a call of a hundred instructions.

#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#define NAT_T_PORT 4500
#define MIN_ESP 8 // SPI and sequence number
#define FRAGMENT 0x3fff // more fragments follow, or this is not the first
#define BUCKETS_BITS 16
#define WAYS 4
#define SPREAD_BITS 7
#define GOLDEN 0x9e3779b1 // Fibonacci hashing: enough to share out SPIs and flows, and cheap

// Written as a whole, 64 bits, while packets pass (kernel/buckets.py): no packet sees half of it.
struct sa {
	__be32 spi; // 0: nobody's
	__u32 cpu;
};

struct bucket {
	struct sa ways[WAYS];
};

// Sections of their own make maps of their own, which are known by these names (kernel/xdp.py).
struct bucket sas[1 << BUCKETS_BITS] SEC(".bss.sas"); // by the SPI's hash
__u32 spread[1 << SPREAD_BITS] SEC(".bss.spread"); // by the flow's hash: 1 + CPU; 0: it passes

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1); // as many as the machine can have: set when it is loaded
	__type(key, __u32);
	__type(value, struct bpf_cpumap_val);
} cpus SEC(".maps");

// Packets for this very CPU need no queue. What the cpumap does not have passes, too.
static __always_inline int to(__u32 cpu)
{
	return cpu == bpf_get_smp_processor_id() ? XDP_PASS : bpf_redirect_map(&cpus, cpu, XDP_PASS);
}

static __always_inline int esp(__be32 spi)
{
	const struct bucket *bucket = &sas[(__u32)(spi * GOLDEN) >> (32 - BUCKETS_BITS)];

	if (!spi) // IKE on the NAT-T port has a SPI of 0 (RFC 3948)
		return XDP_PASS;
#pragma unroll
	for (int way = 0; way < WAYS; way++)
		if (bucket->ways[way].spi == spi)
			return to(bucket->ways[way].cpu);
	return XDP_PASS;
}

// `length`: of what follows the IP header, by that header; it is known to be within the packet.
static __always_inline int transport(const void *at, const void *end, __u8 protocol, __u32 length)
{
	if (protocol == IPPROTO_UDP) {
		const struct udphdr *udp = at;

		if ((const void *)(udp + 1) + MIN_ESP > end || udp->dest != bpf_htons(NAT_T_PORT))
			return XDP_PASS;
		// Keepalives and truncated packets are shorter.
		if (bpf_ntohs(udp->len) != length || length < sizeof(*udp) + MIN_ESP)
			return XDP_PASS;
		return esp(*(const __be32 *)(udp + 1));
	}
	if (protocol != IPPROTO_ESP || length < MIN_ESP || at + MIN_ESP > end)
		return XDP_PASS;
	return esp(*(const __be32 *)at);
}

SEC("xdp")
int flowfast_wan3(struct xdp_md *ctx)
{
	const void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct iphdr *ip = data + ETH_HLEN;
	__be16 kind;

	if ((const void *)(ip + 1) + MIN_ESP > end)
		return XDP_PASS;
	kind = *(const __be16 *)(data + 2 * ETH_ALEN);
	if (kind == bpf_htons(ETH_P_IP)) {
		__u32 total = bpf_ntohs(ip->tot_len);

		// Version 4, five words of header.
		if (*(const __u8 *)ip != 0x45 || total < sizeof(*ip) || ip->frag_off & bpf_htons(FRAGMENT))
			return XDP_PASS;
		if ((const void *)ip + total > end)
			return XDP_PASS;
		return transport(ip + 1, end, ip->protocol, total - sizeof(*ip));
	}
	if (kind == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6hdr *ip6 = data + ETH_HLEN;
		__u32 length;

		if ((const void *)(ip6 + 1) > end || *(const __u8 *)ip6 >> 4 != 6)
			return XDP_PASS;
		length = bpf_ntohs(ip6->payload_len);
		if ((const void *)(ip6 + 1) + length > end)
			return XDP_PASS;
		return transport(ip6 + 1, end, ip6->nexthdr, length);
	}
	return XDP_PASS;
}

// Sums of words times odd constants (multilinear hashing), of which the highest bits are the slot.
#define ODD1 0x85ebca6b
#define ODD2 0xc2b2ae35
#define ODD3 0x27d4eb2f
#define ODD4 0x165667b1

static __always_inline int flow(__u32 sum, const void *ports, const void *end, __u8 protocol)
{
	__u32 cpu;

	// Ports only of what certainly has them. All fragments of a packet have none: they stay together.
	if ((protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) && ports + sizeof(__be32) <= end)
		sum += *(const __be32 *)ports * GOLDEN;
	cpu = spread[sum >> (32 - SPREAD_BITS)];
	return cpu ? to(cpu - 1) : XDP_PASS;
}

SEC("xdp")
int flowfast_lan3(struct xdp_md *ctx)
{
	const void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct iphdr *ip = data + ETH_HLEN;
	__be16 kind;

	if ((const void *)(ip + 1) > end || *(const __u8 *)data & 1) // for many: not forwarded into a tunnel
		return XDP_PASS;
	kind = *(const __be16 *)(data + 2 * ETH_ALEN);
	if (kind == bpf_htons(ETH_P_IP)) {
		__u8 first = *(const __u8 *)ip, protocol = ip->protocol;

		if (first >> 4 != 4)
			return XDP_PASS;
		// Behind options nobody looks for ports.
		if (first != 0x45 || ip->frag_off & bpf_htons(FRAGMENT))
			protocol = 0;
		return flow(ip->saddr * ODD1 + ip->daddr * ODD2, ip + 1, end, protocol);
	}
	if (kind == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6hdr *ip6 = data + ETH_HLEN;
		const __be32 *from = ip6->saddr.s6_addr32, *target = ip6->daddr.s6_addr32;

		if ((const void *)(ip6 + 1) > end || *(const __u8 *)ip6 >> 4 != 6)
			return XDP_PASS;
		return flow((from[0] ^ from[1]) * ODD1 + (from[2] ^ from[3]) * ODD2 + (target[0] ^ target[1]) * ODD3 +
				    (target[2] ^ target[3]) * ODD4,
			    ip6 + 1, end, ip6->nexthdr);
	}
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
