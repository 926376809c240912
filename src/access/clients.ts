import { LRUCache } from "lru-cache";
import { type Db, MongoServerError } from "mongodb";
import { networkOf } from "../domain/peer.ts";
import { Refusal } from "../domain/refusal.ts";
import { Role } from "../gen/ordertrail/events/v1/values_pb.js";
import { type Allowances, createAllowances } from "./allowances.ts";
import { callerOf, roleName } from "./claims.ts";
import { createClientSecrets, type SecretHash } from "./client-secrets.ts";

/** Who may ask for tokens with a secret. */
export type Client = {
  readonly clientId: string;
  /** As tokens name it, such as "partner". */
  readonly role: string;
  /** The `sub` of its tokens. */
  readonly subject: string;
  /** For role store: the store that it acts for. */
  readonly storeId?: string | undefined;
  readonly createdAt: Date;
  /** Set: it gets no more tokens. */
  readonly disabledAt?: Date | undefined;
};

/** The clients. Their secrets are kept as hashes only. */
export type Clients = {
  /** Adds a client and returns its secret, which is not to be had again. Throws a Refusal when there is one of this name, or it could be no caller. */
  create(client: Pick<Client, "clientId" | "role" | "subject" | "storeId">): Promise<string>;
  /** All of them, by name. */
  list(): Promise<Client[]>;
  /** The client, unless it is disabled. */
  find(clientId: string): Promise<Client | undefined>;
  /** Gives a client no more tokens; false if there is no such client. Those that it has must be revoked besides. */
  disable(clientId: string): Promise<boolean>;
  /**
   * The client that shows its secret. Throws a Refusal UNAUTHENTICATED, in the same time whatever is wrong,
   * RATE_LIMITED after several wrong ones, and OVERLOADED when too many ask at once. `address` is where the call comes from.
   */
  authenticate(clientId: string, secret: string, address: string): Promise<Client>;
};

/** The roles that a client may have. Customers and drivers are people: they log in elsewhere. */
export const CLIENT_ROLES: readonly string[] = [Role.SERVICE, Role.PARTNER, Role.STORE, Role.AUDITOR, Role.OPERATOR].map(roleName);

/** A document of `auth_clients`. */
type StoredClient = {
  readonly _id: string;
  readonly role: string;
  readonly subject: string;
  readonly store_id?: string;
  readonly secret: SecretHash;
  readonly created_at: Date;
  readonly disabled_at?: Date;
};

const ROUND_TRIP_MS = 5000;
const DUPLICATE_KEY = 11_000;
const DURABLE = { writeConcern: { w: "majority", journal: true }, timeoutMS: ROUND_TRIP_MS } as const;
const MAJORITY = { readConcern: "majority", readPreference: "primary", timeoutMS: ROUND_TRIP_MS } as const;
/** A client whose configuration is wrong tries at every start; ten a minute from one address is more than that. */
const WRONG_FROM_ADDRESS = { burst: 10, perMinute: 10 };
/** From whatever address. Much more than the other, so that whoever knows a client's name does not lock it out from one place. */
const WRONG_OF_CLIENT = { burst: 100, perMinute: 100 };
/** Under whatever names: those who guess names, too, may not keep the process hashing. */
const WRONG_OF_STRANGERS = { burst: 60, perMinute: 60 };
/** How many clients that have shown their secret are remembered, with from where, and for how long. */
const REMEMBERED = 10_000;
const REMEMBERED_MS = 7 * 24 * 3600 * 1000;

/** The clients in the collection `auth_clients` of `db`. */
export function createClients(db: Db, clock: () => Date): Clients {
  const stored = db.collection<StoredClient>("auth_clients");
  const secrets = createClientSecrets();
  const fromAddress = createAllowances({ ...WRONG_FROM_ADDRESS, clock });
  const ofClient = createAllowances({ ...WRONG_OF_CLIENT, clock });
  const ofStrangers = createAllowances({ ...WRONG_OF_STRANGERS, clock });
  /** Where clients have shown their secrets: what strangers do there does not keep them out. */
  const knownAt = new LRUCache<string, true>({ max: REMEMBERED, ttl: REMEMBERED_MS });

  /** Takes from every allowance or from none. Throws a Refusal when one is used up; answers what gives all back. */
  function takeAll(wanted: readonly (readonly [Allowances, string])[]): () => void {
    const taken: (readonly [Allowances, string])[] = [];
    const giveBack = () => {
      for (const [allowances, key] of taken) allowances.giveBack(key);
    };
    for (const [allowances, key] of wanted) {
      const waitSeconds = allowances.take(key);
      if (waitSeconds > 0) {
        giveBack();
        throw new Refusal("RATE_LIMITED", `too many wrong secrets: try again in ${waitSeconds} seconds`, {
          retry_after_seconds: String(waitSeconds),
        });
      }
      taken.push([allowances, key]);
    }
    return giveBack;
  }

  return {
    async create({ clientId, role, subject, storeId }) {
      if (!CLIENT_ROLES.includes(role)) {
        throw new Refusal("VALIDATION_FAILED", `a client's role must be one of ${CLIENT_ROLES.join(", ")}`);
      }
      callerOf({ sub: subject, role, ...(storeId !== undefined && { store_id: storeId }) });
      const { secret, hash } = await secrets.make();
      const client = {
        _id: clientId,
        role,
        subject,
        ...(storeId !== undefined && { store_id: storeId }),
        secret: hash,
        created_at: clock(),
      };
      try {
        await stored.insertOne(client, DURABLE);
      } catch (error) {
        if (!(error instanceof MongoServerError && error.code === DUPLICATE_KEY)) throw error;
        throw new Refusal("VALIDATION_FAILED", `there is a client ${clientId} already`);
      }
      return secret;
    },

    async list() {
      return (await stored.find({}, { ...MAJORITY, sort: { _id: 1 } }).toArray()).map(clientOf);
    },

    async find(clientId) {
      const found = await stored.findOne({ _id: clientId, disabled_at: { $exists: false } }, MAJORITY);
      return found ? clientOf(found) : undefined;
    },

    async disable(clientId) {
      const { matchedCount } = await stored.updateOne(
        { _id: clientId },
        [{ $set: { disabled_at: { $ifNull: ["$disabled_at", clock()] } } }],
        DURABLE,
      );
      return matchedCount > 0;
    },

    async authenticate(clientId, secret, address) {
      const network = networkOf(address);
      const place = `${clientId} ${network}`;
      const isKnown = knownAt.has(place);
      // Taken before the secret is looked at, so that many at once gain nothing; only a wrong one costs anything in the end.
      const giveBack = takeAll([...(isKnown ? [] : [[ofStrangers, network] as const]), [fromAddress, place], [ofClient, clientId]]);
      let isWrong = false;
      try {
        const found = await stored.findOne({ _id: clientId }, MAJORITY);
        const matches = await secrets.matches(secret, found?.secret, isKnown);
        if (!found || !matches || found.disabled_at) {
          isWrong = true;
          throw new Refusal("UNAUTHENTICATED", "client_id or client_secret is wrong, or the client is disabled");
        }
        knownAt.set(place, true);
        return clientOf(found);
      } finally {
        if (!isWrong) giveBack();
      }
    },
  };
}

function clientOf({ _id, role, subject, store_id, created_at, disabled_at }: StoredClient): Client {
  return { clientId: _id, role, subject, storeId: store_id, createdAt: created_at, disabledAt: disabled_at };
}
