"""When a server is discovered again without anybody asking."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Adds how often discovery failed, and when the clock has it done again."""

    dependencies = [("tools", "0002_discovery_holder")]

    operations = [
        migrations.AddField(
            model_name="discovery", name="failures", field=models.PositiveIntegerField(default=0, editable=False)
        ),
        migrations.AddField(
            model_name="discovery", name="next_at", field=models.DateTimeField(db_index=True, editable=False, null=True)
        ),
    ]
