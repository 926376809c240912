import { readFile } from "node:fs/promises";
import { fromBinary } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { describe, expect, it } from "vitest";
import { LogEntrySchema } from "../../src/gen/ordertrail/events/v1/log_entry_pb.js";
import { EVENT_TYPES, EVENTS_COLLECTION, MAX_BODY_BYTES, type StoredEvent } from "../../src/log/log-entry.ts";
import { anEntry, testLog } from "../support/log.ts";

const PAGE = new URL("../../docs/log-format.md", import.meta.url);

/** What MongoDB calls the types that the page names. */
const BSON_TYPES: Readonly<Record<string, string>> = {
  int64: "long",
  int32: "int",
  string: "string",
  date: "date",
  "array of string": "array",
  "binary, subtype 0": "binData",
};

describe("the page about the log's format", () => {
  it("names the fields of a document and their types, in order", async () => {
    await using log = await testLog();
    await log.appender.append(anEntry("order-1", 1));
    const rows = (await readFile(PAGE, "utf8")).matchAll(/^\| `(\w+)`(?:, `\w+`)* \| ([\w ,]+) \|/gm);
    const promised = Array.from(rows, ([, field = "", type = ""]) => [field, BSON_TYPES[type]]);
    const [fields] = await log.db
      .collection(EVENTS_COLLECTION)
      .aggregate([{ $project: { fields: { $map: { input: { $objectToArray: "$$ROOT" }, in: ["$$this.k", { $type: "$$this.v" }] } } } }])
      .toArray();
    expect(promised).toEqual(fields?.["fields"]);
  });

  it("names the indexes", async () => {
    await using log = await testLog();
    const indexes = await log.db.collection(EVENTS_COLLECTION).indexes();
    expect(indexes.map(({ key, unique }) => ({ key, unique }))).toEqual([
      { key: { _id: 1 }, unique: undefined },
      { key: { stream: 1, version: 1 }, unique: true },
    ]);
  });

  it("gives the limit of a body", async () => {
    expect(await readFile(PAGE, "utf8")).toContain(`at most ${MAX_BODY_BYTES.toLocaleString("en-US")} bytes`);
  });

  it("says truly that the other fields are copies of what the body says", async () => {
    await using log = await testLog();
    await log.appender.append(anEntry("order-1", 1, { kinds: ["pickingResumed", "orderDelivered", "pickingResumed"] }));
    const [document] = await log.db.collection<StoredEvent>(EVENTS_COLLECTION).find().toArray();
    const entry = fromBinary(LogEntrySchema, document?.body.value() ?? new Uint8Array());
    expect(document).toMatchObject({
      stream: entry.stream,
      version: entry.version,
      types: ["PickingResumed", "OrderDelivered", "PickingResumed"],
    });
    expect(document?.at).toEqual(entry.recordedAt && timestampDate(entry.recordedAt));
    expect(EVENT_TYPES).toEqual(expect.arrayContaining([...(document?.types ?? [])]));
  });
});
