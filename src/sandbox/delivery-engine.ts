import { randomUUID } from "node:crypto";

/** How a delivery of the sandbox stands, in the order in which it comes about; each provider has its own words for it. */
export const STAGES = [
  "created",
  "assigned",
  "at_store",
  "picked_up",
  "on_the_way",
  "arrived",
  "delivered",
  "cancelled",
  "returning",
  "returned",
] as const;

export type Stage = (typeof STAGES)[number];

export type Place = { readonly latitude: number; readonly longitude: number };

/** A delivery that the sandbox makes believe. */
export type SandboxDelivery = {
  readonly id: string;
  /** The name that whoever asked gave it. */
  readonly key: string;
  /** What it was asked for with. */
  readonly request: Readonly<Record<string, unknown>>;
  readonly feeMinor: number;
  readonly currency: string;
  readonly createdAt: Date;
  stage: Stage;
  /** Where its courier is; undefined while there is none. */
  place: Place | undefined;
  movedAt: Date;
  endReason: string;
};

/** What is told of a delivery: that it has come to a stage, or that its courier has moved. */
export type News = { readonly delivery: Readonly<SandboxDelivery>; readonly what: "stage" | "place" };

export type DeliveryEngine = {
  /** The delivery of a name, made if there is none. `isSame` tells whether an existing one was asked for in the same way. */
  create(
    key: string,
    request: Readonly<Record<string, unknown>>,
    currency: string,
  ): { readonly delivery: SandboxDelivery; readonly isNew: boolean };
  find(id: string): SandboxDelivery | undefined;
  findByKey(key: string): SandboxDelivery | undefined;
  all(): readonly SandboxDelivery[];
  /** Brings a delivery to a stage, through those between if it goes on. */
  advance(delivery: SandboxDelivery, to: Stage, endReason?: string): void;
  quote(): { readonly feeMinor: number; readonly minutes: number };
  stop(): void;
};

export type EngineOptions = {
  readonly prefix: string;
  readonly feeMinor: number;
  readonly minutes: number;
  /** How long a courier takes from one stage to the next, in milliseconds; 0: they only move when told. */
  readonly stageMs: number;
  readonly onNews: (news: News) => void;
};

const WAY: readonly Stage[] = ["created", "assigned", "at_store", "picked_up", "on_the_way", "arrived", "delivered"];
/** In which of them the courier is on the move. */
const MOVING: readonly Stage[] = ["assigned", "on_the_way"];
/** Where things are that nobody has given coordinates for: two places in Berlin, some two kilometres apart. */
const STORE: Place = { latitude: 52.5219, longitude: 13.4132 };
const HOME: Place = { latitude: 52.5065, longitude: 13.4244 };
/** How many points a courier tells between two stages. */
const POINTS = 5;

/** Makes deliveries up, and moves their couriers along a straight line from store to customer. */
export function createDeliveryEngine({ prefix, feeMinor, minutes, stageMs, onNews }: EngineOptions): DeliveryEngine {
  const deliveries = new Map<string, SandboxDelivery>();
  const byKey = new Map<string, SandboxDelivery>();
  const timers = new Set<NodeJS.Timeout>();
  let stopped = false;

  function later(ms: number, act: () => void): void {
    const timer = setTimeout(() => {
      timers.delete(timer);
      if (!stopped) act();
    }, ms);
    timers.add(timer);
  }

  function enter(delivery: SandboxDelivery, stage: Stage): void {
    delivery.stage = stage;
    delivery.movedAt = new Date();
    delivery.place = placeAt(delivery, stage, 0);
    onNews({ delivery: { ...delivery }, what: "stage" });
  }

  /** Goes on by itself, as couriers do, unless somebody has moved it meanwhile. */
  function goOn(delivery: SandboxDelivery): void {
    const next = WAY[WAY.indexOf(delivery.stage) + 1];
    if (stageMs === 0 || !next || !WAY.includes(delivery.stage)) return;
    const { stage } = delivery;
    for (let point = 1; point < POINTS && MOVING.includes(stage); point++) {
      later((stageMs * point) / POINTS, () => {
        if (delivery.stage !== stage || delivery.place === undefined) return;
        delivery.place = placeAt(delivery, stage, point / POINTS);
        delivery.movedAt = new Date();
        onNews({ delivery: { ...delivery }, what: "place" });
      });
    }
    later(stageMs, () => {
      if (delivery.stage !== stage) return;
      enter(delivery, next);
      goOn(delivery);
    });
  }

  return {
    create(key, request, currency) {
      const existing = byKey.get(key);
      if (existing) return { delivery: existing, isNew: false };
      const now = new Date();
      const delivery: SandboxDelivery = {
        ...{ id: `${prefix}${randomUUID().replaceAll("-", "")}`, key, request, feeMinor, currency, createdAt: now, movedAt: now },
        ...{ stage: "created", place: undefined, endReason: "" },
      };
      deliveries.set(delivery.id, delivery);
      byKey.set(key, delivery);
      goOn(delivery);
      return { delivery, isNew: true };
    },
    find: (id) => deliveries.get(id),
    findByKey: (key) => byKey.get(key),
    all: () => [...deliveries.values()],
    advance(delivery, to, endReason = "") {
      const [from, until] = [WAY.indexOf(delivery.stage), WAY.indexOf(to)];
      const between = from >= 0 && until > from ? WAY.slice(from + 1, until) : [];
      for (const stage of between) enter(delivery, stage);
      delivery.endReason = endReason;
      enter(delivery, to);
      goOn(delivery);
    },
    quote: () => ({ feeMinor, minutes }),
    stop() {
      stopped = true;
      for (const timer of timers) clearTimeout(timer);
    },
  };
}

/** Where a courier is in a stage, of which a share has passed. */
function placeAt({ request }: SandboxDelivery, stage: Stage, share: number): Place | undefined {
  const store = placeOf(request, "pickup") ?? STORE;
  const home = placeOf(request, "dropoff") ?? HOME;
  const start = between(store, home, -0.5);
  switch (stage) {
    case "created":
    case "cancelled":
      return undefined;
    case "assigned":
      return between(start, store, share);
    case "at_store":
    case "picked_up":
      return store;
    case "on_the_way":
      return between(store, home, share);
    case "arrived":
    case "delivered":
      return home;
    case "returning":
      return between(home, store, share);
    case "returned":
      return store;
  }
}

function placeOf(request: Readonly<Record<string, unknown>>, which: "pickup" | "dropoff"): Place | undefined {
  const [latitude, longitude] = [request[`${which}_latitude`], request[`${which}_longitude`]];
  return typeof latitude === "number" && typeof longitude === "number" ? { latitude, longitude } : undefined;
}

function between(a: Place, b: Place, share: number): Place {
  return { latitude: a.latitude + (b.latitude - a.latitude) * share, longitude: a.longitude + (b.longitude - a.longitude) * share };
}
