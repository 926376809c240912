import { isIPv6, type Server, type Socket } from "node:net";
import type { Logger } from "pino";
import type { DoorLimits } from "./door-limits.ts";

/** The connections of a port. */
export type GuardedConnections = {
  /** Cuts off those on which not a byte has come, such as browsers open to be quicker later. */
  destroyUnused(): void;
  /** Cuts off all that are open, TLS handshakes among them. */
  destroyAll(): void;
};

const REPORT_MS = 10_000;

/**
 * Keeps a server's connections within the limits, in number and in the time that TLS may take to begin. Those that are
 * too many are counted in the log, every ten seconds at most.
 */
export function guardConnections(
  server: Server,
  door: "gRPC" | "HTTP",
  { maxConnections, maxConnectionsPerAddress, headersTimeoutMs }: DoorLimits,
  logger: Logger,
): GuardedConnections {
  const open = new Set<Socket>();
  const openByAddress = new Map<string, number>();
  let refused = 0;
  let reportedAt = Number.NEGATIVE_INFINITY;

  function report(address: string): void {
    refused += 1;
    if (performance.now() - reportedAt < REPORT_MS) return;
    reportedAt = performance.now();
    logger.warn({ door, peer: address, refused, open: open.size }, "connections are refused: there are too many");
    refused = 0;
  }

  // Node's own limit begins anew with every byte that comes.
  const handshakes = new Map<string, NodeJS.Timeout>();
  function endHandshake(peer: string): void {
    clearTimeout(handshakes.get(peer));
    handshakes.delete(peer);
  }
  server.on("secureConnection", (secured: Socket) => endHandshake(peerOf(secured)));

  server.maxConnections = maxConnections;
  server.on("drop", (data) => report(data?.remoteAddress ?? ""));
  // Before the server's own listener, which may find the socket closed and then lets it be.
  server.prependListener("connection", (socket: Socket) => {
    const address = networkOf(socket.remoteAddress ?? "");
    const count = (openByAddress.get(address) ?? 0) + 1;
    if (count > maxConnectionsPerAddress) {
      socket.destroy();
      report(address);
      return;
    }
    openByAddress.set(address, count);
    open.add(socket);
    const peer = peerOf(socket);
    if ("setSecureContext" in server)
      handshakes.set(
        peer,
        setTimeout(() => socket.destroy(), headersTimeoutMs),
      );
    socket.once("close", () => {
      endHandshake(peer);
      open.delete(socket);
      const left = (openByAddress.get(address) ?? 1) - 1;
      if (left > 0) openByAddress.set(address, left);
      else openByAddress.delete(address);
    });
  });

  return {
    destroyUnused() {
      for (const socket of open) if (socket.bytesRead === 0) socket.destroy();
    },
    destroyAll() {
      for (const socket of open) socket.destroy();
    },
  };
}

/** The part of an address that one caller commonly has for itself: all of an IPv4 address, and the first half of an IPv6 one. */
export function networkOf(address: string): string {
  if (!isIPv6(address) || address.startsWith("::ffff:")) return address;
  const [head = "", tail] = address.split("::");
  const groups = (part: string) => part.split(":").filter((group) => group !== "");
  const [before, after] = [groups(head), groups(tail ?? "")];
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => "0");
  return [...before, ...zeros, ...after].slice(0, 4).join(":");
}

/** The same of a connection and of what TLS makes of it. */
function peerOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
