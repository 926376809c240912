import { type DeliveryProvider, Role } from "../gen/ordertrail/events/v1/values_pb.js";

/** Who does something, and in what capacity. */
export type Actor = {
  readonly role: Role;
  /** An opaque identifier; never a name, phone number or email address. */
  readonly subject: string;
};

/** Who calls, as the token says. */
export type Caller = Actor & {
  /** The store that a caller of role STORE acts for. */
  readonly storeId?: string;
  /** The provider that a caller of role PARTNER is. */
  readonly provider?: DeliveryProvider;
  /** The one order that a caller of role LINK may see. */
  readonly orderId?: string;
};

/**
 * Whether this caller is a person who speaks for themselves, and not an organisation's machine or staff: their address tells
 * where a person is, and their own words may tell anything of one.
 */
export function isPersonal({ role }: Pick<Caller, "role">): boolean {
  return role === Role.CUSTOMER || role === Role.DRIVER || role === Role.LINK;
}
