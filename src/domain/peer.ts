import { isIP } from "node:net";
import { type Caller, isPersonal } from "./caller.ts";

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

/** The part of an address that one caller commonly has for itself, for limits: all of an IPv4 address, and the first half of an IPv6 one. */
export function networkOf(address: string): string {
  return isIP(address) !== 6 || isMapped(address) ? address : groupsOf(address).slice(0, 4).join(":");
}

/** So much of an address as a log line may tell of one who may be a person: many share it. Empty for what is no address. */
export function neighbourhoodOf(address: string): string {
  const { address: plain } = parsePeer(address);
  if (plain === "") return "";
  if (isIP(plain) === 4) return `${plain.slice(0, plain.lastIndexOf("."))}.0/24`;
  return isMapped(plain) ? "" : `${groupsOf(plain).slice(0, 3).join(":")}::/48`;
}

/**
 * Where a call comes from, as log lines tell it: all that `peerText` has of an organisation, nothing of a person who is
 * known, and of anybody else, who may be one, the neighbourhood.
 */
export function loggedPeer(peer: string, caller: Caller | undefined): { readonly peer?: string } {
  if (!caller) return { peer: neighbourhoodOf(parsePeer(peer).address) };
  return isPersonal(caller) ? {} : { peer };
}

/** An IPv4 address in the form of the other kind. */
function isMapped(address: string): boolean {
  return /^::ffff:/i.test(address);
}

/** The eight groups of an IPv6 address, without what goes without saying. */
function groupsOf(address: string): string[] {
  const [head = "", tail = ""] = address.split("::");
  const groups = (part: string) => part.split(":").flatMap((group) => (group === "" ? [] : [Number.parseInt(group, 16).toString(16)]));
  const [before, after] = [groups(head), groups(tail)];
  return [...before, ...Array.from({ length: 8 - before.length - after.length }, () => "0"), ...after];
}
