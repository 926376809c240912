import { lookup as resolve } from "node:dns";
import { BlockList, isIP, type LookupFunction } from "node:net";

/** Networks that are nobody's on the internet (RFC 6890): this host, private, shared, link-local, documentation, tests, multicast, reserved. */
const NOT_PUBLIC = new BlockList();
for (const [network, prefix] of [
  ...([
    ["0.0.0.0", 8],
    ["10.0.0.0", 8],
    ["100.64.0.0", 10],
    ["127.0.0.0", 8],
    ["169.254.0.0", 16],
  ] as const),
  ...([
    ["172.16.0.0", 12],
    ["192.0.0.0", 24],
    ["192.0.2.0", 24],
    ["192.88.99.0", 24],
    ["192.168.0.0", 16],
  ] as const),
  ...([
    ["198.18.0.0", 15],
    ["198.51.100.0", 24],
    ["203.0.113.0", 24],
    ["224.0.0.0", 4],
    ["240.0.0.0", 4],
  ] as const),
] as const)
  NOT_PUBLIC.addSubnet(network, prefix, "ipv4");
// Those of protocols, among them Teredo, documentation, and 6to4.
for (const [network, prefix] of [
  ["2001::", 23],
  ["2001:db8::", 32],
  ["2002::", 16],
  ["3fff::", 20],
] as const)
  NOT_PUBLIC.addSubnet(network, prefix, "ipv6");
const GLOBAL = new BlockList();
GLOBAL.addSubnet("2000::", 3, "ipv6");

/** That a name stands for an address that is not public. */
export class AddressNotPublic extends Error {
  override readonly name = "AddressNotPublic";
}

/**
 * Whether an IP address is one of the internet. Of IPv6 only what is global unicast is: neither IPv4-mapped addresses nor others that hold
 * an IPv4 address inside, so that nobody gets around the rules for that.
 */
export function isPublic(address: string): boolean {
  const version = isIP(address);
  if (version === 4) return !NOT_PUBLIC.check(address, "ipv4");
  return version === 6 && !address.includes("%") && GLOBAL.check(address, "ipv6") && !NOT_PUBLIC.check(address, "ipv6");
}

/**
 * Looks a name up for a connection, and fails with AddressNotPublic when any of its addresses is not public. What it gives is what is
 * connected to: no second look-up could say something else.
 */
export const lookupPublic: LookupFunction = (hostname, options, callback) => {
  resolve(hostname, { ...options, all: true }, (error, addresses) => {
    const [first] = addresses ?? [];
    if (error || !first) return callback(error ?? Object.assign(new Error("no address"), { code: "ENOTFOUND" }), []);
    if (!addresses.every(({ address }) => isPublic(address))) return callback(new AddressNotPublic("the address is not public"), []);
    return options.all ? callback(null, addresses) : callback(null, first.address, first.family);
  });
};
