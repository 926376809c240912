import { randomUUID } from "node:crypto";
import { Code, ConnectError } from "@connectrpc/connect";
import { Binary, type Document, Long } from "mongodb";
import { describe, expect, it } from "vitest";
import { openCheckpoint } from "../../src/audit/checkpoint.ts";
import { hashLeaf, verifyConsistency, verifyInclusion } from "../../src/audit/merkle.ts";
import { parseVerifierKey } from "../../src/audit/signed-note.ts";
import { RetryInfoSchema } from "../../src/gen/google/rpc/error_details_pb.js";
import { Role } from "../../src/gen/ordertrail/events/v1/values_pb.js";
import { AuditService, type VerifyLogResponse } from "../../src/gen/ordertrail/v1/audit_service_pb.js";
import { OperationsService } from "../../src/gen/ordertrail/v1/operations_service_pb.js";
import { OrderTrackingService } from "../../src/gen/ordertrail/v1/order_tracking_service_pb.js";
import { startTestApp, type TestApp, type TestCaller } from "../support/app.ts";
import { eventually } from "../support/eventually.ts";

const AUDITOR: TestCaller = { role: Role.AUDITOR, subject: "auditor-1" };

describe("AuditService", () => {
  it("proves an entry, and all entries of an order, as soon as they are recorded", async () => {
    await using app = await startTestApp();
    const audit = app.client(AuditService, "grpc", AUDITOR);
    await submit(app, "one", "two", "three");
    const { checkpoint, entries } = await audit.getInclusionProof({ entry: { case: "orderId", value: "three" } });
    const head = openCheckpoint(checkpoint?.signed ?? "", (checkpoint?.verifierKeys ?? []).map(parseVerifierKey));
    expect(entries.length).toBe(1);
    for (const { position, body, hashes } of entries)
      expect(verifyInclusion(hashLeaf(body), Number(position) - 1, head, hashes)).toBe(true);

    const single = await audit.getInclusionProof({ entry: { case: "position", value: 1n } });
    expect(single.entries.map(({ position }) => position)).toEqual([1n]);
    const [first] = single.entries;
    expect(verifyInclusion(hashLeaf(first?.body ?? new Uint8Array()), 0, head, first?.hashes ?? [])).toBe(true);
  });

  it("proves that the log has only grown", async () => {
    await using app = await startTestApp();
    const audit = app.client(AuditService, "connect", AUDITOR);
    await submit(app, "one");
    const before = await eventually(async () => {
      const { checkpoint } = await audit.getCheckpoint({});
      expect(checkpoint?.size).toBe(1n);
      return checkpoint;
    });
    await submit(app, "two", "three", "four");
    await eventually(async () => expect((await audit.getCheckpoint({})).checkpoint?.size).toBe(4n));
    const { hashes, newSize, checkpoint } = await audit.getConsistencyProof({ oldSize: 1n });
    expect(newSize).toBe(4n);
    const older = { size: 1, root: before?.root ?? new Uint8Array() };
    expect(verifyConsistency(older, { size: 4, root: checkpoint?.root ?? new Uint8Array() }, hashes)).toBe(true);
    expect((await audit.getConsistencyProof({ oldSize: 2n, newSize: 3n })).hashes.length).toBe(1);
  });

  it("refuses what is not there, and what makes no sense", async () => {
    await using app = await startTestApp();
    const audit = app.client(AuditService, "grpc", AUDITOR);
    await submit(app, "one");
    const codeOf = (call: Promise<unknown>) =>
      call.then(
        () => "ok",
        (error: unknown) => ConnectError.from(error).code,
      );
    expect(await codeOf(audit.getInclusionProof({ entry: { case: "orderId", value: "none" } }))).toBe(Code.NotFound);
    expect(await codeOf(audit.getInclusionProof({ entry: { case: "position", value: 99n } }))).toBe(Code.NotFound);
    expect(await codeOf(audit.getInclusionProof({ entry: { case: "position", value: 0n } }))).toBe(Code.InvalidArgument);
    expect(await codeOf(audit.getInclusionProof({}))).toBe(Code.InvalidArgument);
    expect(await codeOf(audit.getConsistencyProof({ oldSize: -1n }))).toBe(Code.InvalidArgument);
    expect(await codeOf(audit.getConsistencyProof({ oldSize: 99n }))).toBe(Code.NotFound);
    expect(await codeOf(audit.getConsistencyProof({ oldSize: 0n, newSize: 99n }))).toBe(Code.NotFound);
    const reversed = await audit.getConsistencyProof({ oldSize: 5n, newSize: 3n }).catch(ConnectError.from);
    expect(reversed).toMatchObject({ code: Code.InvalidArgument, rawMessage: "old_size: must be at most new_size, which is 3" });
    expect(reversed instanceof ConnectError && reversed.findDetails(RetryInfoSchema)).toEqual([]);
  });

  it("verifies the log in the database, and says the first position that is wrong", async () => {
    await using app = await startTestApp();
    const audit = app.client(AuditService, "grpc", AUDITOR);
    await submit(app, "one", "two", "three");
    await eventually(async () => expect((await audit.getCheckpoint({})).checkpoint?.size).toBe(3n));
    expect(await lastOf(audit.verifyLog({}))).toMatchObject({ checked: 3n, total: 3n, done: true });
    const events = app.database.db(app.databaseName).collection("events");
    await events.updateOne({ _id: Long.fromNumber(2) } as Document, { $set: { body: new Binary(Buffer.from("other")) } });
    expect(await lastOf(audit.verifyLog({}))).toMatchObject({
      done: true,
      difference: { position: 2n, toPosition: 2n, problem: "its entry is not the one that was recorded" },
    });
  });

  it("verifies what comes after the newest checkpoint, and tells when nothing is signed any more", async () => {
    await using app = await startTestApp();
    const audit = app.client(AuditService, "grpc", AUDITOR);
    await submit(app, "one", "two", "three");
    await eventually(async () => expect((await audit.getCheckpoint({})).checkpoint?.size).toBe(3n));
    expect(await audit.getCheckpoint({})).toMatchObject({ logPosition: 3n, treeProblem: "" });

    const events = app.database.db(app.databaseName).collection("events");
    await events.insertOne({ _id: Long.fromNumber(1_000_000), stream: "zz", version: 1 } as Document);
    await eventually(async () => expect((await audit.getCheckpoint({})).treeProblem).toContain("damaged at position 4"));
    expect(await lastOf(audit.verifyLog({}))).toMatchObject({
      ...{ checked: 3n, total: 3n, done: true, unsignedEntries: 999_997n },
      difference: { position: 4n, toPosition: 4n, problem: "there is no entry" },
      treeProblem: expect.stringContaining("damaged at position 4"),
    });
    await submit(app, "four");
    expect(await lastOf(audit.verifyLog({}))).toMatchObject({ difference: { position: 5n } });
    expect(await (await fetch(`${app.http}/readyz`)).json()).toEqual({
      ready: true,
      checks: { mongodb: "ok", log: "ok", timers: "ok", audit_tree: "failed" },
    });

    await events.deleteOne({ _id: Long.fromNumber(1_000_000) } as Document);
    await eventually(async () => expect((await audit.getCheckpoint({})).checkpoint?.size).toBe(4n));
    expect(await lastOf(audit.verifyLog({}))).toMatchObject({ total: 4n, done: true, unsignedEntries: 0n, treeProblem: "" });
    expect(await (await fetch(`${app.http}/readyz`)).json()).toEqual({
      ready: true,
      checks: { mongodb: "ok", log: "ok", timers: "ok", audit_tree: "ok" },
    });
  });

  it("finds a document that is no entry, put where the next entry would come", async () => {
    await using app = await startTestApp();
    const audit = app.client(AuditService, "grpc", AUDITOR);
    await submit(app, "one", "two", "three");
    await eventually(async () => expect((await audit.getCheckpoint({})).checkpoint?.size).toBe(3n));
    const events = app.database.db(app.databaseName).collection("events");
    await events.insertOne({ _id: Long.fromNumber(4), stream: "zz" } as Document);
    const wrong = { position: 4n, toPosition: 4n, problem: expect.stringContaining("not of the type") };
    expect(await lastOf(audit.verifyLog({}))).toMatchObject({ done: true, difference: wrong });
    await eventually(async () => expect((await audit.getCheckpoint({})).checkpoint?.size).toBe(4n));
    expect(await lastOf(audit.verifyLog({}))).toMatchObject({ done: true, difference: wrong });
  });

  it("finds a log rolled back under a running process, which then records nothing more", async () => {
    await using app = await startTestApp();
    const audit = app.client(AuditService, "grpc", AUDITOR);
    await submit(app, "one", "two", "three");
    await eventually(async () => expect((await audit.getCheckpoint({})).checkpoint?.size).toBe(3n));
    const events = app.database.db(app.databaseName).collection("events");
    await events.deleteOne({ _id: Long.fromNumber(3) } as Document);
    // Until the end that the process saw last is not relied on any more.
    await eventually(async () => await expect(submit(app, randomUUID())).rejects.toThrow());
    await expect(submit(app, "five")).rejects.toThrow();
    expect(await lastOf(audit.verifyLog({}))).toMatchObject({ done: true, difference: { position: 3n, problem: "there is no entry" } });
    const response = await fetch(`${app.http}/readyz`);
    expect([response.status, await response.json()]).toMatchObject([503, { ready: false, checks: { mongodb: "ok", log: "failed" } }]);
  });

  it.each([Number.NaN, Number.POSITIVE_INFINITY])("finds a document whose _id is %d, and calls go on being answered", async (_id) => {
    await using app = await startTestApp();
    const audit = app.client(AuditService, "grpc", AUDITOR);
    await submit(app, "one");
    await eventually(async () => expect((await audit.getCheckpoint({})).checkpoint?.size).toBe(1n));
    await app.database
      .db(app.databaseName)
      .collection("events")
      .insertOne({ _id, stream: "zz", version: 1 } as Document);
    const problem = `a document whose _id is no position of the log: ${_id}`;
    expect(await lastOf(audit.verifyLog({}))).toMatchObject({ done: true, difference: { position: 0n, problem } });
    await submit(app, "two");
    const operations = app.client(OperationsService, "grpc", { role: Role.OPERATOR, subject: "operator-1" });
    expect(await operations.listProjections({})).toMatchObject({ logPosition: 2n });
  });
});

async function lastOf(answers: AsyncIterable<VerifyLogResponse>): Promise<VerifyLogResponse | undefined> {
  let last: VerifyLogResponse | undefined;
  for await (const answer of answers) last = answer;
  return last;
}

async function submit(app: TestApp, ...orderIds: readonly string[]): Promise<void> {
  const tracking = app.client(OrderTrackingService, "grpc", { role: Role.SERVICE, subject: "checkout" });
  for (const orderId of orderIds) {
    await tracking.initTracking({
      orderId,
      storeId: "store-1",
      customerId: "customer-1",
      items: [{ itemId: "apples", name: "Apples", quantity: 1, unitPrice: { amountMinor: 349n, currency: "EUR" } }],
    });
  }
}
