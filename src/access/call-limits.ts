import type { Caller } from "../domain/caller.ts";
import { Refusal } from "../domain/refusal.ts";
import { Role } from "../gen/ordertrail/events/v1/values_pb.js";
import type { Limiter, Limiters } from "../limits/limiters.ts";
import { roleName, TOKEN_ROLES } from "./claims.ts";

/** How many calls a minute one caller may make, by role; who has a role that is not in it may make any number. */
export type CallsPerMinute = ReadonlyMap<Role, number>;

/** Reads "customer=600,driver=1200"; 0 is as good as not to name the role. Throws with what is wrong. */
export function parseCallsPerMinute(text: string): CallsPerMinute {
  const roles = new Map([...TOKEN_ROLES, Role.LINK].map((role) => [roleName(role), role]));
  const limits = new Map<Role, number>();
  for (const item of text.split(",").filter((part) => part.trim() !== "")) {
    const [, name = "", number = ""] = /^\s*([a-z]+)\s*=\s*([0-9]{1,9})\s*$/.exec(item) ?? [];
    const role = roles.get(name);
    if (role === undefined || limits.has(role))
      throw new Error(
        `has "${item.trim()}", but must be role=number, with commas between, each role once, of ${[...roles.keys()].join(", ")}`,
      );
    limits.set(role, Number(number));
  }
  return new Map([...limits].filter(([, calls]) => calls > 0));
}

/** How often callers may call. */
export type CallLimits = {
  /**
   * Counts a call. Undefined for a caller without a limit; else rejects with a Refusal RATE_LIMITED that tells for how
   * long to wait, when there were too many.
   */
  count(caller: Caller): Promise<void> | undefined;
};

/** The limits of roles, which each caller has to themselves. */
export function createCallLimits(callsPerMinute: CallsPerMinute, { limiter }: Pick<Limiters, "limiter">): CallLimits {
  const limiters = new Map(
    [...callsPerMinute].map(([role, points]) => [role, limiter({ name: `calls:${roleName(role)}`, points, seconds: 60 })]),
  );
  return {
    count({ role, subject }) {
      const limited = limiters.get(role);
      return limited && take(limited, subject);
    },
  };
}

async function take(limiter: Limiter, subject: string): Promise<void> {
  const { allowed, retryAfterMs } = await limiter.take(subject);
  if (allowed) return;
  const waitSeconds = Math.ceil(retryAfterMs / 1000);
  throw new Refusal("RATE_LIMITED", `too many calls: wait ${waitSeconds} seconds`, { retry_after_seconds: String(waitSeconds) });
}
