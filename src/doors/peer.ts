import type { Socket } from "node:net";
import { type PeerCertificate, TLSSocket } from "node:tls";

/** For the log: an address, and to whom the client's certificate is made out, if there is one that verified. */
export function peerText(address: string, certificate: PeerCertificate | undefined): string {
  const name = certificate ? nameOf(certificate) : "";
  return name === "" ? address : `${address} (${name})`;
}

const known = new WeakMap<Socket, string>();

/** The same of a connection. */
export function peerOf(socket: Socket): string {
  const address = socket.remoteAddress ?? "";
  if (!(socket instanceof TLSSocket) || !socket.authorized) return address;
  const text = known.get(socket) ?? peerText(address, socket.getPeerCertificate());
  known.set(socket, text);
  return text;
}

const LONGEST_NAME = 200;

/** Its first URI, as workloads have it, or else the common name. */
function nameOf({ subject, subjectaltname = "" }: PeerCertificate): string {
  const uri = /(?:^|, )URI:([^,"]+)/.exec(subjectaltname)?.[1];
  const name = uri ?? [subject?.CN ?? ""].flat()[0] ?? "";
  return name.slice(0, LONGEST_NAME);
}
