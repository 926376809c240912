import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { type PeerCertificate, TLSSocket } from "node:tls";
import { peerText } from "../domain/peer.ts";
import { FORWARDED_FOR_HEADER } from "./proxies.ts";

/** A gRPC call's peer, as `peerText` has it. `peer` is as the library tells it, such as "10.0.0.7:41234" or "[::1]:41234". */
export function grpcPeerOf(peer: string, certificate: PeerCertificate | undefined): string {
  // The port is another for each connection.
  return peerText(peer.replace(/:\d+$/, "").replace(/^\[(.*)\]$/, "$1"), nameOf(certificate));
}

const known = new WeakMap<Socket, string>();

/** The peer of a request's connection, as `peerText` has it, and what proxies say of who is behind it. */
export function peerOf({ socket, headers }: IncomingMessage): { readonly peer: string; readonly forwardedFor: string | undefined } {
  const forwardedFor = headers[FORWARDED_FOR_HEADER];
  return { peer: peerOfSocket(socket), forwardedFor: typeof forwardedFor === "string" ? forwardedFor : forwardedFor?.join() };
}

function peerOfSocket(socket: Socket): string {
  const address = socket.remoteAddress ?? "";
  if (!(socket instanceof TLSSocket) || !socket.authorized) return address;
  const text = known.get(socket) ?? peerText(address, nameOf(socket.getPeerCertificate()));
  known.set(socket, text);
  return text;
}

const LONGEST_NAME = 200;

/** Its first URI, as workloads have it, or else the common name. */
function nameOf(certificate: PeerCertificate | undefined): string {
  if (!certificate) return "";
  const { subject, subjectaltname = "" } = certificate;
  const uri = /(?:^|, )URI:([^,"]+)/.exec(subjectaltname)?.[1];
  const name = uri ?? [subject?.CN ?? ""].flat()[0] ?? "";
  return name.slice(0, LONGEST_NAME);
}
