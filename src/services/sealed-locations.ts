import type { DriverPoint } from "../domain/driver-point.ts";
import type { PersonalKeys } from "../privacy/personal-keys.ts";
import type { DriverLocations, OwnedPoint } from "../projections/driver-locations.ts";
import { placeBytes, placeOf } from "./place-bytes.ts";
import { sealedContext } from "./present-order.ts";

/** Where the driver of an order was last seen, and when they are expected at the customer's, as of then. */
export type LastPoint = DriverPoint & { readonly eta?: Date | undefined; readonly driverId: string };

/** Where the drivers of the orders now under way were last seen, the places sealed under their customers' keys. */
export type SealedLocations = {
  /** Keeps, of each order, the point that is the newest by the device's time; none of a customer who has been erased. */
  record(points: readonly { readonly orderId: string; readonly customerId: string; readonly point: LastPoint }[]): Promise<void>;
  /** The newest point of an order; undefined, too, when its key has been destroyed. */
  find(orderId: string): Promise<LastPoint | undefined>;
};

/** Seals what goes into `locations`, and opens what comes from there. */
export function createSealedLocations(locations: DriverLocations, keys: PersonalKeys): SealedLocations {
  return {
    async record(points) {
      const sealing = points.map(async ({ orderId, customerId, point }) => {
        const { latitude, longitude, isTimeOfReport: _, ...rest } = point;
        const place = await keys.seal(`customer-${customerId}`, placeBytes({ latitude, longitude }), sealedContext.location(orderId));
        return place ? [[orderId, { ...rest, place } satisfies OwnedPoint] as const] : [];
      });
      await locations.record(new Map((await Promise.all(sealing)).flat()));
    },
    async find(orderId) {
      const found = await locations.find(orderId);
      if (!found) return undefined;
      const { place, ...rest } = found;
      const opened = await keys.open(place, sealedContext.location(orderId));
      return opened && { ...rest, ...placeOf(opened) };
    },
  };
}
