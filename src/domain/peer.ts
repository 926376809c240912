import { isIP } from "node:net";

/** Where a call comes from, as text: an address, and to whom the client's certificate is made out, if it showed one that verified. */
export function peerText(address: string, certificateName: string): string {
  return certificateName === "" ? address : `${address} (${certificateName})`;
}

/** What `peerText` was made of, such as "10.0.0.7 (spiffe://shop/checkout)". What is no address is left out. */
export function parsePeer(peer: string): { readonly address: string; readonly certificateName: string } {
  const [, place = "", certificateName = ""] = /^(\S*)(?: \((.*)\))?$/s.exec(peer) ?? [];
  // An IPv4 address, as a socket for both kinds of addresses tells it.
  const address = place.replace(/^::ffff:(?=\d+\.)/i, "");
  return { address: isIP(address) > 0 ? address : "", certificateName };
}
