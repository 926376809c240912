import { randomUUID } from "node:crypto";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { LINK_ROLE } from "../access/claims.ts";
import type { Client, Clients } from "../access/clients.ts";
import { tokenIdOf } from "../access/issuers.ts";
import { mayAccess } from "../access/permissions.ts";
import type { Revocations } from "../access/revocations.ts";
import type { SessionStep, Sessions } from "../access/sessions.ts";
import { MAX_LIFETIME_SECONDS, type SigningKeys } from "../access/signing-keys.ts";
import type { TokenVerifier } from "../access/tokens.ts";
import type { TrackingLinks } from "../access/tracking-links.ts";
import type { OrderState } from "../domain/order.ts";
import { parsePeer } from "../domain/peer.ts";
import { Refusal } from "../domain/refusal.ts";
import type { AuthService } from "../gen/ordertrail/v1/auth_service_pb.js";
import type { Transactor } from "../log/transact.ts";
import type { Erasures } from "../privacy/erasures.ts";
import type { Call, ServiceHandlers } from "./call.ts";

export type AuthDependencies = {
  readonly clients: Clients;
  readonly sessions: Sessions;
  readonly links: TrackingLinks;
  readonly revocations: Revocations;
  readonly signing: Pick<SigningKeys, "sign">;
  readonly tokens: Pick<TokenVerifier, "read">;
  readonly orders: Pick<Transactor<OrderState>, "read">;
  readonly erasures: Pick<Erasures, "isErased">;
  /** What the tokens say. */
  readonly issuer: string;
  readonly audience: string;
  readonly accessTokenSeconds: number;
  readonly refreshTokenSeconds: number;
  /** The page that shows an order to the holder of a tracking link. */
  readonly trackingLinkPage: URL | undefined;
  readonly now: () => Date;
};

const DEFAULT_LINK_SECONDS = 86_400;
/** For how long a token is revoked of which only the identifier is known: longer than any is valid that is made here. */
const REVOKED_BY_ID_MS = 366 * 86_400 * 1000;

/** AuthService: issues, renews and revokes tokens, and makes tracking links. */
export function createAuthService(dependencies: AuthDependencies): ServiceHandlers<typeof AuthService> {
  const { clients, sessions, links, revocations, signing, tokens, orders, erasures, now } = dependencies;
  const { issuer, audience, accessTokenSeconds } = dependencies;

  async function tokensOf({ clientId, role, subject, storeId }: Client, { sessionId, refreshToken, expiresAt }: SessionStep) {
    const claims = { iss: issuer, aud: audience, sub: subject, role, client_id: clientId, sid: sessionId, jti: randomUUID() };
    return {
      accessToken: await signing.sign({ ...claims, ...(storeId !== undefined && { store_id: storeId }) }, accessTokenSeconds),
      tokenType: "Bearer",
      expiresIn: accessTokenSeconds,
      refreshToken,
      refreshExpiresAt: timestampFromDate(expiresAt),
    };
  }

  /** The order, if it is the caller's; otherwise throws a Refusal ORDER_NOT_FOUND. */
  async function readOwn(orderId: string, { caller }: Call): Promise<OrderState> {
    const snapshot = await orders.read(orderId);
    if (snapshot && mayAccess(caller, snapshot.state)) return snapshot.state;
    throw new Refusal("ORDER_NOT_FOUND", `there is no order ${orderId} that you may see`, { order_id: orderId });
  }

  return {
    async issueToken({ clientId, clientSecret }, { peer, log }) {
      const client = await clients.authenticate(clientId, clientSecret, parsePeer(peer).address);
      const session = await sessions.begin(clientId, dependencies.refreshTokenSeconds);
      // Looked at again: whoever disables a client ends the sessions that there are, and this one may be younger.
      if (!(await clients.find(clientId))) throw new Refusal("UNAUTHENTICATED", "the client is disabled");
      log({ client_id: clientId, session_id: session.sessionId, peer }, "tokens issued");
      return await tokensOf(client, session);
    },

    async refreshToken({ refreshToken, requestId }) {
      const session = await sessions.refresh(refreshToken, requestId);
      const client = await clients.find(session.clientId);
      if (!client) throw new Refusal("UNAUTHENTICATED", "the client is disabled");
      return await tokensOf(client, session);
    },

    async revokeToken({ token }) {
      await sessions.revokeBy(token);
      try {
        const { revocableBy, untilMs } = await tokens.read(token);
        await revocations.revoke([revocableBy[0]], new Date(untilMs));
      } catch (error) {
        // Whoever brings what is no token (any more) has nothing to revoke, and is told no more than others are.
        if (!(error instanceof Refusal)) throw error;
      }
      return {};
    },

    async revokeAccess({ target, issuer: whose }, { caller, log }) {
      switch (target.case) {
        case "tokenId":
          await revocations.revoke(
            [whose === "" || whose === issuer ? `token:${target.value}` : tokenIdOf(whose, target.value)],
            new Date(now().getTime() + REVOKED_BY_ID_MS),
          );
          break;
        case "sessionId":
          await sessions.revoke(target.value);
          break;
        case "clientId":
          await sessions.revokeAll(target.value);
          break;
        case undefined:
          throw new Error("validation lets no RevokeAccess without a target through");
      }
      log({ subject: caller.subject, target: target.case, id: target.value }, "access revoked");
      return {};
    },

    async createTrackingLink({ orderId, expiresIn }, call) {
      const { customerId } = await readOwn(orderId, call);
      const seconds = Math.min(expiresIn || DEFAULT_LINK_SECONDS, MAX_LIFETIME_SECONDS);
      const expiresAt = new Date(now().getTime() + seconds * 1000);
      const linkId = await links.create(orderId, expiresAt, call.caller);
      // Looked at when the link can be found: an erasure that begins later revokes it.
      if (await erasures.isErased(`customer-${customerId}`)) {
        await links.discard(linkId);
        throw new Refusal("CUSTOMER_ERASED", `customer ${customerId} has been erased: no links are made to their orders any more`, {
          customer_id: customerId,
        });
      }
      const claims = { iss: issuer, aud: audience, sub: linkId, role: LINK_ROLE, order_id: orderId, jti: linkId };
      const token = await signing.sign(claims, seconds);
      call.log({ order_id: orderId, link_id: linkId, role: call.caller.role }, "tracking link made");
      return { linkId, token, expiresAt: timestampFromDate(expiresAt), url: pageOf(dependencies.trackingLinkPage, token) };
    },

    async revokeTrackingLink({ orderId, linkId }, call) {
      await readOwn(orderId, call);
      await links.revoke(orderId, linkId === "" ? undefined : linkId);
      return {};
    },
  };
}

/** The token is in the fragment, which browsers keep to themselves: neither access logs nor other sites see it. */
function pageOf(page: URL | undefined, token: string): string {
  if (!page) return "";
  const url = new URL(page);
  url.hash = `token=${token}`;
  return url.href;
}
