import { pino } from "pino";
import { describe, expect, it } from "vitest";
import { createCallLimits, parseCallsPerMinute } from "../../src/access/call-limits.ts";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { createLimiters } from "../../src/limits/limiters.ts";

describe("parseCallsPerMinute", () => {
  it("reads how much each role may do, and forgets those without a limit", () => {
    expect(parseCallsPerMinute("customer=600, driver = 1200,service=0,link=7,")).toEqual(
      new Map([
        [Role.CUSTOMER, 600],
        [Role.DRIVER, 1200],
        [Role.LINK, 7],
      ]),
    );
    expect(parseCallsPerMinute("customer=0")).toEqual(new Map());
  });

  it.each(["600", "customer", "customer=", "customer=-1", "customer=1.5", "customer=x", "nobody=5", "system=5", "customer=1,customer=2"])(
    "refuses %j, and says what is known",
    (text) => {
      expect(() => parseCallsPerMinute(text)).toThrow(/must be role=number, .* of service, customer, .*, link$/);
    },
  );
});

describe("createCallLimits", () => {
  const limiters = createLimiters({ redisUrl: undefined, prefix: "test", logger: pino({ level: "silent" }) });
  const limits = () => createCallLimits(parseCallsPerMinute("customer=2,driver=1"), limiters);

  it("promises nothing to who has no limit, as that takes time", () => {
    expect(limits().count({ role: Role.SERVICE, subject: "checkout" })).toBeUndefined();
  });

  it("counts for each role and subject", async () => {
    const { count } = limits();
    const ada = { role: Role.CUSTOMER, subject: "ada" };
    await count(ada);
    await count(ada);
    await expect(count(ada)).rejects.toMatchObject({
      reason: "RATE_LIMITED",
      message: "too many calls: wait 60 seconds",
      metadata: { retry_after_seconds: "60" },
    });
    await count({ role: Role.CUSTOMER, subject: "ben" });
    await count({ role: Role.DRIVER, subject: "ada" });
    await expect(count({ role: Role.DRIVER, subject: "ada" })).rejects.toMatchObject({ reason: "RATE_LIMITED" });
  });
});
