"""Who holds the claim of a discovery."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Adds the holder."""

    dependencies = [("tools", "0001_initial")]

    operations = [
        migrations.AddField(
            model_name="discovery", name="holder", field=models.CharField(blank=True, editable=False, max_length=80)
        )
    ]
