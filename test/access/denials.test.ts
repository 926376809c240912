import pino from "pino";
import { beforeEach, describe, expect, it } from "vitest";
import { createDenials, type Denial, isDenial } from "../../src/access/denials.ts";
import { Door, Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";

const ada = { role: Role.CUSTOMER, subject: "customer-1" };
const denial: Denial = {
  method: "ordertrail.v1.OperationsService/ListProjections",
  door: Door.GRPC,
  reason: "PERMISSION_DENIED",
  caller: ada,
  peer: "10.0.0.7",
  traceId: "trace-1",
};

let nowMs: number;
let lines: Record<string, unknown>[];
const make = (perMinute = 3) =>
  createDenials({
    perMinute,
    logger: pino({}, { write: (line) => lines.push(JSON.parse(line)) }),
    clock: () => new Date(nowMs),
  });
beforeEach(() => {
  nowMs = 1_800_000_000_000;
  lines = [];
});

describe("a denial", () => {
  it("is logged with who called what through which door", () => {
    expect(make().record(denial)).toBe(0);
    expect(lines).toMatchObject([
      {
        level: 40,
        msg: "call denied",
        method: denial.method,
        door: "GRPC",
        reason: "PERMISSION_DENIED",
        role: "customer",
        subject: "customer-1",
        trace_id: "trace-1",
      },
    ]);
  });

  it("is logged with the address of an organisation, so much of a stranger's as many share, and none of a customer or driver", () => {
    const denials = make();
    const { caller: _, ...stranger } = denial;
    const callers = [Role.CUSTOMER, Role.DRIVER, Role.LINK, Role.STORE, Role.PARTNER].map((role) => ({ role, subject: "someone" }));
    for (const caller of callers) denials.record({ ...denial, caller });
    denials.record({ ...stranger, caller: undefined });
    expect(lines.map(({ peer }) => peer)).toEqual([undefined, undefined, undefined, "10.0.0.7", "10.0.0.7", "10.0.0.0/24"]);
  });

  it("is limited when there are too many of one caller, which is logged once, and others are not", () => {
    const denials = make();
    const waits = Array.from({ length: 6 }, () => denials.record(denial));
    expect(waits).toEqual([0, 0, 0, 20, 20, 20]);
    expect(lines).toHaveLength(4);
    expect(lines[3]).toMatchObject({ retry_after_seconds: 20, subject: "customer-1" });
    expect(denials.record({ ...denial, caller: { ...ada, subject: "customer-2" } })).toBe(0);
    nowMs += 20_000;
    expect([denials.record(denial), denials.record(denial)]).toEqual([0, 20]);
  });

  it("of a caller who is not known is limited by address", () => {
    const denials = make();
    const unknown: Denial = { ...denial, reason: "UNAUTHENTICATED", caller: undefined };
    for (let time = 0; time < 3; time++) denials.record({ ...unknown, door: time % 2 === 0 ? Door.REST : Door.GRPC });
    expect(denials.record(unknown)).toBe(20);
    expect(denials.record({ ...unknown, peer: "10.0.0.8" })).toBe(0);
    expect(denials.record(denial)).toBe(0);
  });

  it("of a caller who is not known is limited by the network that one caller has for itself, and named by no certificate", () => {
    const denials = make();
    const from = (peer: string) => denials.record({ ...denial, reason: "UNAUTHENTICATED", caller: undefined, peer });
    expect([1, 2, 3, 4].map((host) => from(`2001:db8:1:2::${host} (Jane Doe)`))).toEqual([0, 0, 0, 20]);
    expect(from("2001:db8:1:3::1")).toBe(0);
    expect(lines.map(({ peer }) => peer)).toEqual(Array(5).fill("2001:db8:1::/48"));
  });

  it("is counted by method, door, role and reason", () => {
    const denials = make();
    for (let time = 0; time < 5; time++) denials.record(denial);
    denials.record({ ...denial, door: Door.REST, caller: undefined, reason: "UNAUTHENTICATED" });
    expect(denials.counts()).toEqual([
      { method: denial.method, door: Door.GRPC, role: Role.CUSTOMER, reason: "PERMISSION_DENIED", count: 5, limited: 2 },
      { method: denial.method, door: Door.REST, role: Role.UNSPECIFIED, reason: "UNAUTHENTICATED", count: 1, limited: 0 },
    ]);
  });
});

describe("that there is no such order", () => {
  it.each([Role.CUSTOMER, Role.STORE, Role.DRIVER, Role.PARTNER, Role.LINK])("is a denial for role %i, whose it may not be", (role) => {
    expect(isDenial("ORDER_NOT_FOUND", { role, subject: "x" })).toBe(true);
  });

  it.each([Role.SERVICE, Role.AUDITOR, Role.OPERATOR])("is none for role %i, which sees all", (role) => {
    expect(isDenial("ORDER_NOT_FOUND", { role, subject: "x" })).toBe(false);
  });

  it.each(["VALIDATION_FAILED", "INVALID_STATUS_TRANSITION", "UNAVAILABLE", "INTERNAL"] as const)("nor is %s", (reason) => {
    expect(isDenial(reason, ada)).toBe(false);
  });
});
