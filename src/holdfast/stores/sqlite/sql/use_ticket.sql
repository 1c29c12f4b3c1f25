-- Parameters: ticket, the queue that its claim began with, worker
UPDATE holdfast_workers SET ticket = ?, turn = ? WHERE id = ?;
