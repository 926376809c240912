import type { Courier } from "./courier.ts";
import { createDoorDash, type DoorDashSettings } from "./doordash.ts";
import { createInHouse, type InHouseSettings } from "./in-house.ts";
import { createUber, type UberSettings } from "./uber.ts";

/** The accounts with delivery providers. A provider without one is not there. */
export type CourierAccounts = {
  readonly uber?: Omit<UberSettings, "timeoutMs">;
  readonly doordash?: Omit<DoorDashSettings, "timeoutMs">;
  readonly inHouse?: InHouseSettings;
};

/** The delivery providers that there is an account with. `timeoutMs` is what one attempt to call may take. */
export function createCouriers({ uber, doordash, inHouse }: CourierAccounts, timeoutMs: number, clock: () => Date): readonly Courier[] {
  return [
    ...(uber ? [createUber({ ...uber, timeoutMs }, clock)] : []),
    ...(doordash ? [createDoorDash({ ...doordash, timeoutMs }, clock)] : []),
    ...(inHouse ? [createInHouse(inHouse, clock)] : []),
  ];
}
