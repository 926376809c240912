import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { type Event, EventSchema } from "../../src/gen/ordertrail/events/v1/log_entry_pb.js";
import { areSameEvents } from "../../src/log/same-events.ts";

const event = (kind: Parameters<typeof create<typeof EventSchema>>[1] & object): Event => create(EventSchema, kind);
const sealed = (byte: number) => ({ keyId: Uint8Array.of(byte), nonce: Uint8Array.of(byte), ciphertext: Uint8Array.of(byte) });
const assigned = (driverId: string, byte: number, eta = 0) =>
  event({
    note: sealed(byte),
    kind: { case: "driverAssigned", value: { driver: { driverId, personal: sealed(byte) }, eta: timestampFromMs(eta) } },
  });
const proposed = (substitutionId: string, reason: string) =>
  event({ kind: { case: "substitutionsProposed", value: { substitutions: [{ substitutionId, reason }] } } });
const resolved = (substitutionId: string) =>
  event({ kind: { case: "substitutionsResolved", value: { resolutions: [{ substitutionId, status: 2 }] } } });
const submitted = (metadata: Record<string, string>) => event({ kind: { case: "orderSubmitted", value: { orderId: "o", metadata } } });

describe("events decided twice", () => {
  it.each([
    ["sealed on another day", [assigned("d-1", 1)], [assigned("d-1", 2)]],
    ["at another time", [assigned("d-1", 1, 1)], [assigned("d-1", 1, 2)]],
    ["with identifiers made up anew", [proposed("s-1", "sold out")], [proposed("s-2", "sold out")]],
    ["with the same metadata", [submitted({ a: "b" })], [submitted({ a: "b" })]],
  ])("are the same %s", (_, one, other) => {
    expect(areSameEvents(one, other)).toBe(true);
  });

  it.each([
    ["another driver", [assigned("d-1", 1)], [assigned("d-2", 1)]],
    ["another reason", [proposed("s-1", "sold out")], [proposed("s-1", "too ripe")]],
    ["an answer to another proposal", [resolved("s-1")], [resolved("s-2")]],
    ["other metadata", [submitted({ a: "b" })], [submitted({ a: "c" })]],
    ["one more", [resolved("s-1")], [resolved("s-1"), resolved("s-1")]],
    ["another kind", [resolved("s-1")], [assigned("d-1", 1)]],
  ])("differ by %s", (_, one, other) => {
    expect(areSameEvents(one, other)).toBe(false);
  });
});
