import { BlockList, isIP } from "node:net";
import { parsePeer, peerText } from "../domain/peer.ts";

/** The header by which proxies say for whom they call: addresses with commas between, each proxy adding the one that called it. */
export const FORWARDED_FOR_HEADER = "x-forwarded-for";

/** The proxies whose word is taken: addresses, and networks such as "10.0.0.0/8". Throws an Error for what is neither. */
export function parseProxies(networks: readonly string[]): BlockList {
  const proxies = new BlockList();
  for (const network of networks) {
    const [address = "", prefix, ...more] = network.split("/");
    const family = familyOf(address);
    const longest = family === "ipv4" ? 32 : 128;
    if (!family || more.length > 0 || (prefix !== undefined && !(/^\d{1,3}$/.test(prefix) && Number(prefix) <= longest)))
      throw new Error(`must be addresses or networks such as 10.0.0.0/8, and ${JSON.stringify(network)} is neither`);
    proxies.addSubnet(address, prefix === undefined ? longest : Number(prefix), family);
  }
  return proxies;
}

/**
 * Where a call comes from that came by way of proxies, as `peerText` has it: the last address in the header that is not one
 * of these proxies. What callers wrote into it themselves stands before that, and is not believed.
 */
export function peerBehind(proxies: BlockList, peer: string, forwardedFor: string | undefined): string {
  if (forwardedFor === undefined) return peer;
  const { address: connected } = parsePeer(peer);
  let address = connected;
  for (const hop of forwardedFor.split(",").reverse()) {
    const family = familyOf(address);
    if (!family || !proxies.check(address, family)) break;
    const before = parsePeer(withoutPort(hop.trim())).address;
    if (before === "") break;
    address = before;
  }
  // A certificate that a proxy showed does not name who called it.
  return address === connected ? peer : peerText(address, "");
}

function familyOf(address: string): "ipv4" | "ipv6" | undefined {
  const version = isIP(address);
  return version === 0 ? undefined : version === 4 ? "ipv4" : "ipv6";
}

/** Some proxies add the port, and brackets around IPv6. */
function withoutPort(hop: string): string {
  return /^\[([^\]]*)\](?::\d+)?$/.exec(hop)?.[1] ?? /^([\d.]+):\d+$/.exec(hop)?.[1] ?? hop;
}
