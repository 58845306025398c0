"""The views for those who come from an older service."""

from alembic import op

from models.store.legacy import FULFILLED_ORDER_SPLITS, FULFILLED_ORDERS

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the views."""
    op.execute(FULFILLED_ORDERS[op.get_bind().dialect.name])
    op.execute(FULFILLED_ORDER_SPLITS)


def downgrade() -> None:
    """Drop the views."""
    op.execute("DROP VIEW fulfilled_order_splits")
    op.execute("DROP VIEW fulfilled_orders")
