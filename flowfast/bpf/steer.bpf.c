// SPDX-License-Identifier: GPL-2.0
// Steering in front of the network stack: each SA's packets to the SA's own CPU, each flow of the LAN to one CPU.
//
// flowfast_wan (on a WAN device): ESP, and ESP in UDP, of a SPI that is in `sas` goes to that SA's CPU by cpumap.
// flowfast_lan (on a LAN device): a flow's packets go to one CPU of `spread`, so that its outbound SA is that CPU's.
// Whatever is malformed, fragmented (WAN) or unknown passes untouched: the stack is the judge of it, as it was before.
// Here belongs only what must happen for each packet; flowfast (plan/steering) decides, and fills the maps.

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
#define SPREAD 128
#define NO_CPU 0xffffffff

struct sa {
	__u32 cpu;
	__u32 unused;
	__u64 packets; // that this CPU took in and sent there
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __be32); // SPI
	__type(value, struct sa);
} sas SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SPREAD);
	__type(key, __u32);
	__type(value, __u32); // CPU, or NO_CPU
} spread SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1); // as many as the machine can have: set when it is loaded
	__type(key, __u32);
	__type(value, struct bpf_cpumap_val);
} cpus SEC(".maps");

static __always_inline int to(__u32 cpu)
{
	// Packets for this very CPU need no queue. What the cpumap does not have passes, too.
	return cpu == bpf_get_smp_processor_id() ? XDP_PASS : bpf_redirect_map(&cpus, cpu, XDP_PASS);
}

static __always_inline int esp(const __be32 *spi)
{
	struct sa *sa = bpf_map_lookup_elem(&sas, spi);

	if (!sa)
		return XDP_PASS;
	sa->packets++;
	return to(sa->cpu);
}

// `length`: of what follows the IP header, by that header; it is known to be within the packet.
static __always_inline int transport(const void *at, const void *end, __u8 protocol, __u32 length)
{
	const __be32 *spi = at;

	if (protocol == IPPROTO_UDP) {
		const struct udphdr *udp = at;

		if ((const void *)(udp + 1) > end || udp->dest != bpf_htons(NAT_T_PORT))
			return XDP_PASS;
		// Keepalives and truncated packets are shorter; IKE has a SPI of 0, which no SA has (RFC 3948).
		if (bpf_ntohs(udp->len) != length || length < sizeof(*udp) + MIN_ESP)
			return XDP_PASS;
		spi = (const void *)(udp + 1);
	} else if (protocol != IPPROTO_ESP || length < MIN_ESP) {
		return XDP_PASS;
	}
	if ((const void *)spi + MIN_ESP > end)
		return XDP_PASS;
	return esp(spi);
}

SEC("xdp")
int flowfast_wan1(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct ethhdr *eth = data;
	const struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > end)
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		__u32 header = ip->ihl * 4, total = bpf_ntohs(ip->tot_len);

		if (ip->version != 4 || header < sizeof(*ip) || total < header || ip->frag_off & bpf_htons(FRAGMENT))
			return XDP_PASS;
		if ((void *)ip + total > end)
			return XDP_PASS;
		return transport((void *)ip + header, end, ip->protocol, total - header);
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6hdr *ip6 = (void *)(eth + 1);
		__u32 length;

		if ((void *)(ip6 + 1) > end || ip6->version != 6)
			return XDP_PASS;
		length = bpf_ntohs(ip6->payload_len);
		if ((void *)(ip6 + 1) + length > end)
			return XDP_PASS;
		return transport(ip6 + 1, end, ip6->nexthdr, length);
	}
	return XDP_PASS;
}

static __always_inline __u32 mixed(__u32 hash, __u32 word)
{
	hash = (hash ^ word) * 0x9e3779b1; // Fibonacci hashing: enough to share flows out, and cheap
	return hash ^ hash >> 15;
}

static __always_inline int flow(__u32 hash, const __be32 *ports, void *end, __u8 protocol)
{
	__u32 slot, *cpu;

	// Ports only of what certainly has them. All fragments of a packet have none: they stay together.
	if ((protocol == IPPROTO_TCP || protocol == IPPROTO_UDP) && (void *)(ports + 1) <= end)
		hash = mixed(hash, *ports);
	slot = hash >> 8 & (SPREAD - 1);
	cpu = bpf_map_lookup_elem(&spread, &slot);
	return !cpu || *cpu == NO_CPU ? XDP_PASS : to(*cpu);
}

SEC("xdp")
int flowfast_lan1(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	const struct ethhdr *eth = data;
	const struct iphdr *ip = (void *)(eth + 1);

	if ((void *)(ip + 1) > end || eth->h_dest[0] & 1) // for many: not forwarded into a tunnel
		return XDP_PASS;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		__u8 protocol = ip->frag_off & bpf_htons(FRAGMENT) ? 0 : ip->protocol;

		if (ip->version != 4 || ip->ihl < 5)
			return XDP_PASS;
		return flow(mixed(mixed(protocol, ip->saddr), ip->daddr), (void *)ip + ip->ihl * 4, end, protocol);
	}
	if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		const struct ipv6hdr *ip6 = (void *)(eth + 1);
		__u32 hash;

		if ((void *)(ip6 + 1) > end || ip6->version != 6)
			return XDP_PASS;
		hash = ip6->nexthdr == IPPROTO_TCP || ip6->nexthdr == IPPROTO_UDP ? ip6->nexthdr : 0;
#pragma unroll
		for (int i = 0; i < 4; i++)
			hash = mixed(mixed(hash, ip6->saddr.s6_addr32[i]), ip6->daddr.s6_addr32[i]);
		return flow(hash, (void *)(ip6 + 1), end, ip6->nexthdr);
	}
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
