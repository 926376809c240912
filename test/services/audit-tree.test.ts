import { randomUUID } from "node:crypto";
import { Code, ConnectError } from "@connectrpc/connect";
import { Binary, type Document, Long } from "mongodb";
import { describe, expect, it } from "vitest";
import { checkpointText, openCheckpoint } from "../../src/audit/checkpoint.ts";
import { CHECKPOINTS_COLLECTION, type CheckpointDocument } from "../../src/audit/checkpoint-store.ts";
import { createFrontier } from "../../src/audit/frontier.ts";
import { hashLeaf, verifyConsistency, verifyInclusion } from "../../src/audit/merkle.ts";
import { createSignerKey, parseVerifierKey, signNote } from "../../src/audit/signed-note.ts";
import { TILES_COLLECTION } from "../../src/audit/tile-store.ts";
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

  it("believes no checkpoint and no key that somebody has put into the database", async () => {
    await using app = await startTestApp();
    const audit = app.client(AuditService, "grpc", AUDITOR);
    await submit(app, "one", "two", "three");
    await eventually(async () => expect((await audit.getCheckpoint({})).checkpoint?.size).toBe(3n));
    const checkpoints = app.database.db(app.databaseName).collection<CheckpointDocument>(CHECKPOINTS_COLLECTION);
    const kept = await checkpoints.find().toArray();
    const newest = kept.at(-1) as CheckpointDocument;
    const root = new Binary(Buffer.alloc(32, 1));
    const stranger = createSignerKey("ordertrail.localhost/audit", Buffer.alloc(32, 9));
    const forged = signNote(checkpointText({ origin: "ordertrail.localhost/audit", size: 3, root: root.value() }), [stranger]);
    const tampering: readonly (readonly [string, object])[] = [
      ["signed with the key", { root, note: forged }],
      ["does not match the text", { note: newest.note?.replace("/audit\n3\n", "/audit\n2\n") }],
      ["not a signed note", { note: "nonsense" }],
      ["says something else", { root }],
      ["says something else", { root: "nonsense" }],
    ];
    for (const [problem, fields] of tampering) {
      await checkpoints.updateOne({ _id: newest._id }, { $set: fields });
      const { difference, done } = (await lastOf(audit.verifyLog({}))) ?? {};
      expect([done, difference?.position, difference?.problem]).toEqual([true, 0n, expect.stringContaining(problem)]);
      await checkpoints.replaceOne({ _id: newest._id }, newest);
    }
    await checkpoints.updateOne({ _id: newest._id }, { $set: { cosignatures: ["nonsense", 1] as string[] } });
    expect(await lastOf(audit.verifyLog({}))).toMatchObject({ done: true, total: 3n, checked: 3n });
    await checkpoints.updateOne({ _id: newest._id }, { $unset: { cosignatures: 1 } });
    expect((await app.get(AUDITOR, "/audit/checkpoint")).status).toBe(200);
    await checkpoints.replaceOne({ _id: newest._id }, newest);
    expect((await lastOf(audit.verifyLog({})))?.difference).toBeUndefined();
  });

  it("finds an entry changed with its tiles and with every checkpoint, by what is remembered apart from the database", async () => {
    await using app = await startTestApp();
    const audit = app.client(AuditService, "grpc", AUDITOR);
    await submit(app, "one", "two", "three");
    await eventually(async () => expect((await audit.getCheckpoint({})).checkpoint?.size).toBe(3n));
    const db = app.database.db(app.databaseName);
    const entries = db.collection<Document & { _id: number }>("events");
    await entries.updateOne({ _id: 2 }, { $set: { body: new Binary(Buffer.from("other")) } });
    const bodies = (await entries.find().sort({ _id: 1 }).toArray()).map(({ body }) => hashLeaf((body as Binary).value()));
    await db.collection(TILES_COLLECTION).updateOne({ width: 3 }, { $set: { hashes: new Binary(Buffer.concat(bodies)) } });
    const frontier = createFrontier();
    for (const hash of bodies) frontier.append(hash);
    const root = frontier.root();
    const stranger = createSignerKey("ordertrail.localhost/audit", Buffer.alloc(32, 9));
    const note = signNote(checkpointText({ origin: "ordertrail.localhost/audit", size: 3, root }), [stranger]);
    const checkpoints = db.collection<CheckpointDocument>(CHECKPOINTS_COLLECTION);
    await checkpoints.deleteMany({});
    await checkpoints.insertOne({ _id: 3, root: new Binary(root), note, cosignatures: [], signed_at: new Date() });
    const { difference } = (await lastOf(audit.verifyLog({}))) ?? {};
    expect(Number(difference?.position)).toBeLessThanOrEqual(2);
    expect(Number(difference?.toPosition)).toBeGreaterThanOrEqual(2);
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
