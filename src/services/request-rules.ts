import { type DescMessage, isMessage, type JsonObject, type JsonValue, type Message, type MessageShape } from "@bufbuild/protobuf";
import { type Timestamp, timestampDate, timestampMs } from "@bufbuild/protobuf/wkt";
import type { Violation } from "../domain/refusal.ts";
import type { Item, Money } from "../gen/ordertrail/events/v1/values_pb.js";
import { PutStoreRequestSchema } from "../gen/ordertrail/v1/operations_service_pb.js";
import {
  AssignDriverRequestSchema,
  InitTrackingRequestSchema,
  ListTrackingsRequestSchema,
  MarkDeliveredRequestSchema,
  UpdateLocationRequestSchema,
  UpdateSubstitutionsRequestSchema,
} from "../gen/ordertrail/v1/order_tracking_service_pb.js";

const MAX_AHEAD_SECONDS = 60;
const METADATA_KEY = /^[A-Za-z0-9_-]{1,64}$/;
const MAX_SHOWN_KEY = 64;
const MAX_METADATA_LEVELS = 5;
const MAX_METADATA_BYTES = 8 * 1024;

const CURRENCIES: ReadonlySet<string> = new Set(Intl.supportedValuesOf("currency"));

type Rules = { readonly schema: DescMessage; check(request: Message, now: Date): Violation[] };

const RULES: ReadonlyMap<string, Rules> = new Map(
  [
    rules(InitTrackingRequestSchema, ({ items, metadata }) => [...checkItems("items", items), ...checkMetadata("metadata", metadata)]),
    rules(UpdateSubstitutionsRequestSchema, ({ substitutions }) =>
      substitutions.flatMap(({ originalItem, replacementItem }, index) => [
        ...checkItem(`substitutions[${index}].original_item`, originalItem),
        ...checkItem(`substitutions[${index}].replacement_item`, replacementItem),
      ]),
    ),
    rules(AssignDriverRequestSchema, ({ delivery }) => checkMoney("delivery.fee", delivery?.fee)),
    rules(UpdateLocationRequestSchema, ({ recordedAt }, now) => checkNotAhead("recorded_at", recordedAt, now)),
    rules(PutStoreRequestSchema, ({ timeZone }) => checkTimeZone("time_zone", timeZone)),
    rules(MarkDeliveredRequestSchema, ({ proofOfDelivery }, now) =>
      checkNotAhead("proof_of_delivery.delivered_at", proofOfDelivery?.deliveredAt, now),
    ),
    rules(ListTrackingsRequestSchema, ({ createdFrom, createdBefore }) =>
      createdFrom && createdBefore && timestampMs(createdFrom) >= timestampMs(createdBefore)
        ? [{ field: "created_from", rule: "time.before_created_before", detail: "must be before created_before" }]
        : [],
    ),
  ].map((entry) => [entry.schema.typeName, entry]),
);

/** The rules of a request that its schema cannot say and that are broken. Reads no state but the clock. */
export function checkRequest(request: Message, now: Date): Violation[] {
  return RULES.get(request.$typeName)?.check(request, now) ?? [];
}

function rules<Desc extends DescMessage>(schema: Desc, check: (request: MessageShape<Desc>, now: Date) => Violation[]): Rules {
  return { schema, check: (request, now) => (isMessage(request, schema) ? check(request, now) : []) };
}

function checkItems(field: string, items: readonly Item[]): Violation[] {
  return items.flatMap((item, index) => checkItem(`${field}[${index}]`, item));
}

function checkItem(field: string, item: Item | undefined): Violation[] {
  return checkMoney(`${field}.unit_price`, item?.unitPrice);
}

function checkMoney(field: string, money: Money | undefined): Violation[] {
  // What is not three letters breaks the schema's rule already.
  if (!money || !/^[A-Z]{3}$/.test(money.currency) || CURRENCIES.has(money.currency)) return [];
  return [{ field: `${field}.currency`, rule: "currency.known", detail: "must be an ISO 4217 code, such as EUR" }];
}

function checkTimeZone(field: string, timeZone: string): Violation[] {
  if (timeZone === "") return [];
  try {
    new Intl.DateTimeFormat("en", { timeZone });
    return [];
  } catch {
    return [{ field, rule: "time_zone.known", detail: "must be the IANA name of a time zone, such as Europe/Berlin" }];
  }
}

function checkNotAhead(field: string, time: Timestamp | undefined, now: Date): Violation[] {
  if (!time || timestampDate(time).getTime() <= now.getTime() + MAX_AHEAD_SECONDS * 1000) return [];
  return [{ field, rule: "time.not_ahead", detail: `must not be more than ${MAX_AHEAD_SECONDS} seconds ahead of the server's clock` }];
}

function checkMetadata(field: string, metadata: JsonObject | undefined): Violation[] {
  if (!metadata) return [];
  const violations = checkMetadataValue(field, metadata, 1);
  // Too deep to be measured: JSON.stringify would recurse as deep.
  if (violations.some(({ rule }) => rule === "metadata.depth")) return violations;
  const bytes = Buffer.byteLength(JSON.stringify(metadata));
  if (bytes > MAX_METADATA_BYTES)
    violations.push({ field, rule: "metadata.size", detail: `must be at most ${MAX_METADATA_BYTES} bytes as JSON; it is ${bytes}` });
  return violations;
}

function checkMetadataValue(field: string, value: JsonValue, level: number): Violation[] {
  // Protobuf carries what JSON cannot write.
  if (typeof value === "number" && !Number.isFinite(value)) return [{ field, rule: "metadata.number", detail: "must be a finite number" }];
  if (value === null || typeof value !== "object") return [];
  if (level > MAX_METADATA_LEVELS) return [{ field, rule: "metadata.depth", detail: `must be at most ${MAX_METADATA_LEVELS} levels deep` }];
  if (Array.isArray(value)) return value.flatMap((element, index) => checkMetadataValue(`${field}[${index}]`, element, level + 1));
  return Object.entries(value).flatMap(([key, member]) =>
    METADATA_KEY.test(key) && key !== "__proto__"
      ? checkMetadataValue(`${field}.${key}`, member, level + 1)
      : [
          {
            field: `${field}[${JSON.stringify(key.slice(0, MAX_SHOWN_KEY))}]`,
            rule: "metadata.key",
            detail: "must have keys of 1 to 64 letters, digits, _ and -, other than __proto__",
          },
        ],
  );
}
