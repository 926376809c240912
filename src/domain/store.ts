import { equals } from "@bufbuild/protobuf";
import type { Event } from "../gen/ordertrail/events/v1/log_entry_pb.js";
import { type StoreProfile, StoreProfileSchema } from "../gen/ordertrail/events/v1/store_events_pb.js";
import { happened } from "./order-event.ts";

/** The stream of a store in the log. */
export const storeStream = (storeId: string): string => `store-${storeId}`;

/** A store as its events tell it; no profile before the first. */
export type StoreState = { readonly profile?: StoreProfile | undefined; readonly updatedAt: Date };

/** What putting a store brings about: nothing when it is so already. */
export function decideStore(state: StoreState | undefined, profile: StoreProfile): Event[] {
  if (state?.profile && equals(StoreProfileSchema, state.profile, profile)) return [];
  return [happened({ case: "storeConfigured", value: { store: profile } })];
}

/** A store after an event. Events of other kinds change nothing but the time. */
export function evolveStore(state: StoreState | undefined, event: Event, context: { readonly recordedAt: Date }): StoreState {
  const profile = event.kind.case === "storeConfigured" ? event.kind.value.store : undefined;
  return { profile: profile ?? state?.profile, updatedAt: context.recordedAt };
}
