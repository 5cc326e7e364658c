-- A node that is cut off: it is not heard and gets no work until it joins by a new token.
ALTER TABLE node ADD COLUMN revoked_at timestamptz;
