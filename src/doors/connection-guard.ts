import type { Server, Socket } from "node:net";
import type { Logger } from "pino";
import { neighbourhoodOf, networkOf } from "../domain/peer.ts";
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
  const openByNetwork = new Map<string, number>();
  let refused = 0;
  let reportedAt = Number.NEGATIVE_INFINITY;

  function report(address: string): void {
    refused += 1;
    if (performance.now() - reportedAt < REPORT_MS) return;
    reportedAt = performance.now();
    logger.warn({ door, peer: neighbourhoodOf(address), refused, open: open.size }, "connections are refused: there are too many");
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
    const network = networkOf(socket.remoteAddress ?? "");
    const count = (openByNetwork.get(network) ?? 0) + 1;
    if (count > maxConnectionsPerAddress) {
      socket.destroy();
      report(socket.remoteAddress ?? "");
      return;
    }
    openByNetwork.set(network, count);
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
      const left = (openByNetwork.get(network) ?? 1) - 1;
      if (left > 0) openByNetwork.set(network, left);
      else openByNetwork.delete(network);
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

/** The same of a connection and of what TLS makes of it. */
function peerOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
