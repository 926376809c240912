import type { Logger } from "pino";
import type { Caller } from "../domain/caller.ts";
import { loggedPeer, networkOf, parsePeer } from "../domain/peer.ts";
import type { RefusalReason } from "../domain/refusal.ts";
import { Door, Role } from "../gen/ordertrail/events/v1/values_pb.js";
import { createAllowances } from "./allowances.ts";
import { roleName } from "./claims.ts";

/** A call that was denied. */
export type Denial = {
  /** The full name of an RPC, or an HTTP method and path. */
  readonly method: string;
  readonly door: Door;
  readonly reason: RefusalReason;
  /** Who called; undefined if that is not known. */
  readonly caller: Caller | undefined;
  /** Where the call comes from, as `peerText` has it. */
  readonly peer: string;
  readonly traceId: string;
};

/** How often calls were denied, by all that `Denial` says but who called. */
export type DenialCount = {
  readonly method: string;
  readonly door: Door;
  readonly role: Role;
  readonly reason: RefusalReason;
  readonly count: number;
  /** How many of them were answered with RATE_LIMITED. */
  readonly limited: number;
};

/** Counts, logs and limits what is denied. Who is not denied anything is never limited. */
export type Denials = {
  /**
   * Records a denial. Answers 0, or for how many seconds its caller is to be told to wait, because there were too many.
   * A caller who is known is limited by their subject, any other by `networkOf` their address.
   */
  record(denial: Denial): number;
  /** What was denied by this process since it started, most frequent first. */
  counts(): DenialCount[];
};

/** Whether a call that failed so was denied: that there is no such order is what those are told whose it is not. */
export function isDenial(reason: RefusalReason, caller: Caller | undefined): boolean {
  switch (reason) {
    case "UNAUTHENTICATED":
    case "PERMISSION_DENIED":
    // By a client that has shown too many wrong secrets.
    case "RATE_LIMITED":
      return true;
    case "ORDER_NOT_FOUND":
      return caller !== undefined && !SEES_ALL.includes(caller.role);
    default:
      return false;
  }
}

const SEES_ALL: readonly Role[] = [Role.SERVICE, Role.AUDITOR, Role.OPERATOR];

export type DenialsOptions = {
  /** How many denials a minute one caller is told the reason of. */
  readonly perMinute: number;
  readonly logger: Logger;
  readonly clock: () => Date;
};

type Counted = { count: number; limited: number } & Omit<DenialCount, "count" | "limited">;

/** Denials of this process. The counts are bounded by what there is to call. */
export function createDenials({ perMinute, logger, clock }: DenialsOptions): Denials {
  const allowances = createAllowances({ burst: perMinute, perMinute, clock });
  const counts = new Map<string, Counted>();
  /** Whoever is being limited, so that it is logged once; forgotten with the first denial that is not limited. */
  const limited = new Set<string>();
  const LIMITED_AT_MOST = 10_000;

  function countOf({ method, door, reason, caller }: Denial): Counted {
    const role = caller?.role ?? Role.UNSPECIFIED;
    const key = `${method} ${door} ${role} ${reason}`;
    const known = counts.get(key) ?? { method, door, role, reason, count: 0, limited: 0 };
    counts.set(key, known);
    return known;
  }

  return {
    record(denial) {
      const { method, door, reason, caller, peer, traceId } = denial;
      const who = caller ? `${caller.role} ${caller.subject}` : networkOf(parsePeer(peer).address);
      const waitSeconds = allowances.take(who);
      const counted = countOf(denial);
      counted.count++;
      if (waitSeconds > 0) counted.limited++;
      const line = {
        trace_id: traceId,
        method,
        door: Door[door],
        reason,
        ...loggedPeer(peer, caller),
        ...(caller && { role: roleName(caller.role), subject: caller.subject }),
      };
      if (waitSeconds === 0) {
        limited.delete(who);
        logger[reason === "ORDER_NOT_FOUND" ? "info" : "warn"](line, "call denied");
      } else if (!limited.has(who)) {
        if (limited.size >= LIMITED_AT_MOST) limited.clear();
        limited.add(who);
        logger.warn(
          { ...line, retry_after_seconds: waitSeconds },
          "denied too often: further denials are answered RATE_LIMITED and not logged",
        );
      }
      return waitSeconds;
    },

    counts: () => [...counts.values()].toSorted((a, b) => b.count - a.count).map((counted) => ({ ...counted })),
  };
}
